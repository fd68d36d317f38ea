// The conformance suite of Gateway API, with base manifests of our own choice: a node that gives Pods a network
// namespace lets in what their containers declare, and the published ones declare no ports.
package gatewayconformance

import (
	"io/fs"
	"os"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	if folder := os.Getenv("BASE_MANIFESTS"); folder != "" {
		options.BaseManifests = "base.yaml"
		options.ManifestFS = []fs.FS{os.DirFS(folder), &conformance.Manifests}
	}
	conformance.RunConformanceWithOptions(t, options)
}
