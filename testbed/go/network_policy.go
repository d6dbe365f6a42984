package main

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// direction is what differs between the rules for traffic into a pod and out of it.
type direction struct {
	kind   networkingv1.PolicyType
	prefix string // of the chain of one pod
	peer   string // where a packet says who the other side is
}

var (
	ingress = direction{networkingv1.PolicyTypeIngress, "in", "ip saddr"}
	egress  = direction{networkingv1.PolicyTypeEgress, "out", "ip daddr"}
)

// rule is one ingress or egress rule of a policy, in a form that both share.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// policyRules writes the nftables ruleset of the given NetworkPolicies (IPv4).
//
// Every isolated pod has a chain per direction that returns what is allowed and drops the rest. It is a pure
// function with one answer for one input, so an unchanged answer means that nothing has to be done.
//
// Pods hang on routed veth pairs, so packets between two pods of one node pass the forward hook too. What a pod
// sends to its node (the API server, say) passes the input hook: egress rules hold there as they would with
// the API server on another node. What the node sends to a pod (probes) is always allowed, as everywhere.
func policyRules(pods []*corev1.Pod, namespaces []*corev1.Namespace, policies []*networkingv1.NetworkPolicy) (string, error) {
	world := newWorld(pods, namespaces)
	sort.Slice(policies, func(i, j int) bool {
		return policies[i].Namespace+"/"+policies[i].Name < policies[j].Namespace+"/"+policies[j].Name
	})
	var chains strings.Builder
	verdicts := map[string][]string{}
	for _, pod := range world.pods {
		for _, way := range []direction{ingress, egress} {
			lines, isolated, err := world.podRules(pod, way, policies)
			if err != nil {
				return "", err
			}
			if !isolated {
				continue
			}
			chain := way.prefix + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
			fmt.Fprintf(&chains, "\tchain %s { # %s/%s\n", chain, pod.Namespace, pod.Name)
			for _, line := range lines {
				fmt.Fprintf(&chains, "\t\t%s return\n", line)
			}
			chains.WriteString("\t\tcounter drop\n\t}\n")
			verdicts[way.prefix] = append(verdicts[way.prefix], pod.Status.PodIP+" : jump "+chain)
		}
	}
	jump := func(field, prefix string) string {
		if len(verdicts[prefix]) == 0 {
			return ""
		}
		return fmt.Sprintf("\t\t%s vmap { %s }\n", field, strings.Join(verdicts[prefix], ", "))
	}
	// Adding before deleting makes the delete succeed the first time as well; the kernel takes all of it or nothing.
	return "add table inet saatkond-policy\ndelete table inet saatkond-policy\ntable inet saatkond-policy {\n" +
		chains.String() +
		"\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n" +
		"\t\tct state established,related accept\n" + jump("ip saddr", egress.prefix) + jump("ip daddr", ingress.prefix) + "\t}\n" +
		"\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n" +
		"\t\tct state established,related accept\n" + jump("ip saddr", egress.prefix) + "\t}\n}\n", nil
}

// world is the pods that have an address of their own, and the labels of the namespaces.
type world struct {
	pods       []*corev1.Pod
	namespaces map[string]labels.Set
}

func newWorld(pods []*corev1.Pod, namespaces []*corev1.Namespace) world {
	w := world{namespaces: map[string]labels.Set{}}
	for _, namespace := range namespaces {
		w.namespaces[namespace.Name] = namespace.Labels
	}
	for _, pod := range pods {
		over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Spec.HostNetwork || pod.Status.PodIP == "" || over || strings.Contains(pod.Status.PodIP, ":") {
			continue
		}
		w.pods = append(w.pods, pod)
	}
	sort.Slice(w.pods, func(i, j int) bool { return w.pods[i].Status.PodIP < w.pods[j].Status.PodIP })
	return w
}

// podRules are the matches that one pod's traffic is allowed by; isolated says whether any policy applies at all.
func (w world) podRules(pod *corev1.Pod, way direction, policies []*networkingv1.NetworkPolicy) (lines []string, isolated bool, err error) {
	for _, policy := range policies {
		if policy.Namespace != pod.Namespace || !speaksOf(policy, way.kind) {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			return nil, false, fmt.Errorf("policy %s/%s: %w", policy.Namespace, policy.Name, err)
		}
		if !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		isolated = true
		for _, r := range rulesOf(policy, way.kind) {
			matches, err := w.matches(policy.Namespace, pod, way, r)
			if err != nil {
				return nil, false, fmt.Errorf("policy %s/%s: %w", policy.Namespace, policy.Name, err)
			}
			lines = append(lines, matches...)
		}
	}
	return lines, isolated, nil
}

func speaksOf(policy *networkingv1.NetworkPolicy, kind networkingv1.PolicyType) bool {
	for _, t := range policy.Spec.PolicyTypes {
		if t == kind {
			return true
		}
	}
	return false // the API server fills policyTypes in, so an empty list does not occur
}

func rulesOf(policy *networkingv1.NetworkPolicy, kind networkingv1.PolicyType) (rules []rule) {
	if kind == networkingv1.PolicyTypeIngress {
		for _, r := range policy.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
		return rules
	}
	for _, r := range policy.Spec.Egress {
		rules = append(rules, rule{r.To, r.Ports})
	}
	return rules
}

// matches writes one rule: each of its peers with each of its ports.
func (w world) matches(namespace string, pod *corev1.Pod, way direction, r rule) ([]string, error) {
	var lines []string
	add := func(peer string, peerPod *corev1.Pod) {
		if len(r.ports) == 0 {
			lines = append(lines, strings.TrimSpace(peer))
			return
		}
		for _, port := range r.ports {
			if match := portMatch(port, namedIn(pod, peerPod, way)); match != "" {
				lines = append(lines, strings.TrimSpace(peer+" "+match))
			}
		}
	}
	if len(r.peers) == 0 {
		add("", nil)
		// A named port of an egress rule without peers means that port wherever a pod calls it so.
		if way == egress && hasNamed(r.ports) {
			for _, other := range w.pods {
				add("ip daddr "+other.Status.PodIP, other)
			}
		}
		return lines, nil
	}
	for _, peer := range r.peers {
		if peer.IPBlock != nil {
			match := way.peer + " " + peer.IPBlock.CIDR
			if len(peer.IPBlock.Except) > 0 {
				match += fmt.Sprintf(" %s != { %s }", way.peer, strings.Join(peer.IPBlock.Except, ", "))
			}
			if !strings.Contains(peer.IPBlock.CIDR, ":") {
				add(match, nil)
			}
			continue
		}
		selected, err := w.selected(namespace, peer)
		if err != nil {
			return nil, err
		}
		for _, other := range selected {
			add(way.peer+" "+other.Status.PodIP, other)
		}
	}
	return lines, nil
}

func (w world) selected(namespace string, peer networkingv1.NetworkPolicyPeer) ([]*corev1.Pod, error) {
	inNamespace := func(name string) bool { return name == namespace }
	if peer.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
		if err != nil {
			return nil, err
		}
		inNamespace = func(name string) bool { return selector.Matches(w.namespaces[name]) }
	}
	pods := labels.Everything()
	if peer.PodSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(peer.PodSelector)
		if err != nil {
			return nil, err
		}
		pods = selector
	}
	var selected []*corev1.Pod
	for _, pod := range w.pods {
		if inNamespace(pod.Namespace) && pods.Matches(labels.Set(pod.Labels)) {
			selected = append(selected, pod)
		}
	}
	return selected, nil
}

func hasNamed(ports []networkingv1.NetworkPolicyPort) bool {
	for _, port := range ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			return true
		}
	}
	return false
}

// namedIn says which pod's container ports a named port refers to: the one that is connected to.
func namedIn(pod, peer *corev1.Pod, way direction) *corev1.Pod {
	if way == ingress {
		return pod
	}
	return peer
}

func portMatch(port networkingv1.NetworkPolicyPort, named *corev1.Pod) string {
	protocol := corev1.ProtocolTCP
	if port.Protocol != nil {
		protocol = *port.Protocol
	}
	l4 := strings.ToLower(string(protocol))
	switch {
	case port.Port == nil:
		return "meta l4proto " + l4
	case port.Port.Type == intstr.Int && port.EndPort != nil:
		return fmt.Sprintf("%s dport %d-%d", l4, port.Port.IntVal, *port.EndPort)
	case port.Port.Type == intstr.Int:
		return fmt.Sprintf("%s dport %d", l4, port.Port.IntVal)
	case named == nil:
		return ""
	}
	for _, container := range named.Spec.Containers {
		for _, p := range container.Ports {
			if p.Name == port.Port.StrVal && (p.Protocol == protocol || p.Protocol == "" && protocol == corev1.ProtocolTCP) {
				return fmt.Sprintf("%s dport %d", l4, p.ContainerPort)
			}
		}
	}
	return ""
}
