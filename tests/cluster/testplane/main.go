// Command testplane is a Kubernetes control plane in one binary: the name it is called by picks the component.
//
// It exists for tests and benchmarks that need the real API server where no container engine and no image is at hand.
// build.py, beside this folder, writes go.mod and the links.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	component, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "testplane: call it by one of its links: etcd, kube-apiserver, kube-controller-manager, kube-scheduler (not %q)\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(component()))
}
