//go:build !without_apiserver && !node

package main

import (
	"os"
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func init() {
	parts["kube-apiserver"] = func() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
}
