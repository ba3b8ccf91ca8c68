// Command kubernetes is the parts of Kubernetes that a test cluster here runs, in one binary: what it is
// called by, or its first argument, says which of them it is. One binary because they share most of
// their code: one build and one link instead of six.
//
// It is built twice: the parts of a control plane, and, with the tag `node`, those of a machine that runs
// pods; most users need no more than the first.
//
// Each part is a file that registers itself. Where a machine has a part already, `cargo xtask tools`
// leaves its file out by a build tag. The blank imports are those of upstream's own main packages.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// parts holds the main function of each part that was built in, by name.
var parts = map[string]func(){}

func main() {
	if run, ok := parts[filepath.Base(os.Args[0])]; ok {
		run()
		return
	}
	if len(os.Args) > 1 {
		if run, ok := parts[os.Args[1]]; ok {
			os.Args = os.Args[1:]
			run()
			return
		}
	}
	fmt.Fprint(os.Stderr, "usage: kubernetes PART ARGS... with one of these parts:")
	for name := range parts {
		fmt.Fprint(os.Stderr, " ", name)
	}
	fmt.Fprintln(os.Stderr)
	os.Exit(2)
}
