// Command helm is Helm, built beside CoreDNS so that both compile the
// Kubernetes client once.
package main

import (
	"errors"
	"fmt"
	"os"

	helm "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
)

func main() {
	// Who owns the fields of what it applies, whatever this file is called.
	kube.ManagedFieldsManager = "helm"
	command, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		code := 1
		if of, ok := errors.AsType[helm.CommandError](err); ok {
			code = of.ExitCode
		}
		os.Exit(code)
	}
}
