// Command pause holds a pod's namespaces in tests, as Kubernetes' own pause does: it waits, buries what
// dies in a shared process namespace, and ends when it is asked to.
//
// It is in the one image that every pod needs, which no registry here has. Static, so that the image is
// this file and nothing else.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if id, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); id <= 0 {
				break
			}
		}
	}
}
