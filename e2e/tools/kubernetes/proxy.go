//go:build node

package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

func init() {
	parts["kube-proxy"] = func() { os.Exit(cli.Run(app.NewProxyCommand())) }
}
