// Command authz_builder prints the RBAC filters that Istio has Envoy apply for AuthorizationPolicies.
//
// tests.peer.make_principal_data runs it. Standard input is a JSON array; each element has "documents" (a stream of
// YAML), "trust_domain" and "aliases". Standard output is a JSON object: "istio" is the version of the generator, and
// "filters" has for each element {"http": [...], "tcp": [...]}, as a static configuration of Envoy takes them.
//
// The workload is in the namespace shop, with the label app: billing. Documents are validated as istiod does. The
// builder is called as in istio.io/istio/pilot/pkg/networking/plugin/authz for the inbound side of a sidecar.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"google.golang.org/protobuf/proto"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/security/authz/builder"
	"istio.io/istio/pilot/pkg/security/trustdomain"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/protomarshal"
)

const (
	generator     = "istio.io/istio"
	namespace     = "shop"
	rootNamespace = "istio-system"
)

var labels = map[string]string{"app": "billing"}

type set struct {
	Documents   string   `json:"documents"`
	TrustDomain string   `json:"trust_domain"`
	Aliases     []string `json:"aliases"`
}

type filters struct {
	HTTP []json.RawMessage `json:"http"`
	TCP  []json.RawMessage `json:"tcp"`
}

type output struct {
	Istio   string    `json:"istio"`
	Filters []filters `json:"filters"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	// Istio logs to standard output by default.
	options := log.DefaultOptions()
	options.OutputPaths = []string{"stderr"}
	if err := log.Configure(options); err != nil {
		return err
	}
	var sets []set
	if err := json.NewDecoder(os.Stdin).Decode(&sets); err != nil {
		return fmt.Errorf("cannot read the sets: %w", err)
	}
	version, err := generatorVersion()
	if err != nil {
		return err
	}
	result := output{Istio: version}
	for number, each := range sets {
		built, err := build(each)
		if err != nil {
			return fmt.Errorf("set %d: %w", number, err)
		}
		result.Filters = append(result.Filters, built)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func build(each set) (filters, error) {
	found, unknown, err := crd.ParseInputs(each.Documents)
	if err != nil {
		return filters{}, err
	}
	if len(unknown) > 0 {
		return filters{}, fmt.Errorf("%d documents are of an unknown kind", len(unknown))
	}
	store := memory.Make(collections.Pilot)
	for _, document := range found {
		if _, err := store.Create(document); err != nil {
			return filters{}, err
		}
	}
	policies := model.GetAuthorizationPolicies(&model.Environment{ConfigStore: store})
	policies.RootNamespace = rootNamespace // istiod reads it from the configuration of the mesh
	selection := model.PolicyMatcherFor(namespace, labels, false).WithRootNamespace(rootNamespace)
	bundle := trustdomain.NewBundle(each.TrustDomain, each.Aliases)
	made := builder.New(bundle, nil, policies.ListAuthorizationPolicies(selection), builder.Option{})
	if made == nil {
		return filters{HTTP: []json.RawMessage{}, TCP: []json.RawMessage{}}, nil
	}
	http, err := marshal(made.BuildHTTP())
	if err != nil {
		return filters{}, err
	}
	tcp, err := marshal(made.BuildTCP())
	return filters{HTTP: http, TCP: tcp}, err
}

func marshal[M proto.Message](messages []M) ([]json.RawMessage, error) {
	result := []json.RawMessage{}
	for _, each := range messages {
		text, err := protomarshal.Marshal(each)
		if err != nil {
			return nil, err
		}
		result = append(result, text)
	}
	return result, nil
}

func generatorVersion() (string, error) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == generator {
				return module.Version, nil
			}
		}
	}
	return "", fmt.Errorf("this program does not name the version of %s", generator)
}
