package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, ip, app string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
	}
}

func selects(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// rulesFor is the ruleset of one policy on the pods web and client of namespace a, and client of namespace b.
func rulesFor(t *testing.T, spec networkingv1.NetworkPolicySpec) string {
	t.Helper()
	pods := []*corev1.Pod{
		pod("a", "web", "10.0.0.1", "web"), pod("a", "client", "10.0.0.2", "client"), pod("b", "client", "10.0.0.3", "client"),
	}
	namespaces := []*corev1.Namespace{
		{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"name": "a"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"name": "b"}}},
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: spec}
	rules, err := policyRules(pods, namespaces, []*networkingv1.NetworkPolicy{policy})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestPolicyRules(t *testing.T) {
	named, number, end := intstr.FromString("http"), intstr.FromInt32(80), int32(90)
	udp := corev1.ProtocolUDP
	in := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	out := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	for name, test := range map[string]struct {
		spec    networkingv1.NetworkPolicySpec
		want    []string
		mustNot []string
	}{
		"no rule closes": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("web"), PolicyTypes: in},
			[]string{"ip daddr vmap { 10.0.0.1 : jump in_10_0_0_1 }", "chain in_10_0_0_1 { # a/web\n\t\tcounter drop"},
			[]string{"return", "out_"},
		},
		"an empty rule opens": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("web"), PolicyTypes: in, Ingress: []networkingv1.NetworkPolicyIngressRule{{}}},
			[]string{"{ # a/web\n\t\t return\n"}, nil,
		},
		"a pod selector stays in its namespace": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("web"), PolicyTypes: in, Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From: []networkingv1.NetworkPolicyPeer{{PodSelector: selects("client")}},
			}}},
			[]string{"ip saddr 10.0.0.2 return"}, []string{"ip saddr 10.0.0.3"},
		},
		"a namespace selector leaves it": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("web"), PolicyTypes: in, Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "b"}}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &named}},
			}}},
			[]string{"ip saddr 10.0.0.3 tcp dport 8080 return"}, []string{"ip saddr 10.0.0.2"},
		},
		"blocks, ranges and protocols": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("client"), PolicyTypes: out, Egress: []networkingv1.NetworkPolicyEgressRule{{
				To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &number, EndPort: &end}, {Protocol: &udp}},
			}}},
			[]string{
				"ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } tcp dport 80-90 return",
				"ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } meta l4proto udp return",
				"ip saddr vmap { 10.0.0.2 : jump out_10_0_0_2 }",
			},
			[]string{"in_"},
		},
		"a named port of another pod": {
			networkingv1.NetworkPolicySpec{PodSelector: *selects("client"), PolicyTypes: out, Egress: []networkingv1.NetworkPolicyEgressRule{{
				To:    []networkingv1.NetworkPolicyPeer{{PodSelector: selects("web")}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &named}},
			}}},
			[]string{"ip daddr 10.0.0.1 tcp dport 8080 return"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			rules := rulesFor(t, test.spec)
			for _, want := range test.want {
				if !strings.Contains(rules, want) {
					t.Errorf("no %q in\n%s", want, rules)
				}
			}
			for _, mustNot := range test.mustNot {
				if strings.Contains(rules, mustNot) {
					t.Errorf("%q in\n%s", mustNot, rules)
				}
			}
			if again := rulesFor(t, test.spec); again != rules {
				t.Errorf("another answer for the same input:\n%s", again)
			}
		})
	}
}
