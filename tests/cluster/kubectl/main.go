// Command kubectl is the published kubectl module built as it is, for releases that PyPI does not carry.
//
// build.py, beside this folder, writes go.mod and the version.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	util.CheckErr(cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()))
}
