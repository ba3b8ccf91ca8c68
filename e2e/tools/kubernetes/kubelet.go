//go:build node

package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func init() {
	parts["kubelet"] = func() { os.Exit(cli.Run(app.NewKubeletCommand(context.Background()))) }
}
