// Command testplane is a Kubernetes control plane in one binary: the name it is called by picks the component.
//
// It exists for tests and benchmarks that need the real API server where no container engine and no image is at hand.
// build.py, beside this folder, writes go.mod and the links.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	metricsserver "sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"metrics-server":          newMetricsServerCommand,
}

// newMetricsServerCommand ends the server at the first SIGTERM; its own command wants the channel that says so.
func newMetricsServerCommand() *cobra.Command {
	ended, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	return metricsserver.NewMetricsServerCommand(ended.Done())
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	component, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "testplane: call it by one of its links: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, metrics-server (not %q)\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(component()))
}
