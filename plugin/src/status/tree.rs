//! The report as people read it.

use std::fmt::Write;

use jiff::Timestamp;

use super::report::{AnchorReport, MemberReport, Report, ServerReport, State};

/// The tree; times are told from `now`.
pub fn render(report: &Report, now: Timestamp) -> String {
    let mut roots: Vec<Node> = report.trust_anchors.iter().map(|anchor| anchor_node(anchor, now)).collect();
    for server in &report.servers_without_member {
        let mut node = server_node(server, now);
        node.text = format!("{} in {}: its member is not there", node.text, server.namespace);
        roots.push(node);
    }
    if roots.is_empty() {
        return "No trust anchors, members or security servers.\n".to_owned();
    }
    let mut out = String::new();
    for root in &roots {
        root.write(&mut out, "", "");
    }
    out
}

struct Node {
    text: String,
    details: Vec<String>,
    children: Vec<Node>,
}

impl Node {
    fn write(&self, out: &mut String, first: &str, rest: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{first}{}", self.text);
        let bar = if self.children.is_empty() { "  " } else { "│ " };
        for detail in &self.details {
            let _ = writeln!(out, "{rest}{bar}  {detail}");
        }
        for (at, child) in self.children.iter().enumerate() {
            let last = at + 1 == self.children.len();
            let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.write(out, &format!("{rest}{branch}"), &format!("{rest}{below}"));
        }
    }
}

fn anchor_node(anchor: &AnchorReport, now: Timestamp) -> Node {
    let instance = anchor.instance.as_ref().map(|instance| format!(" ({instance})")).unwrap_or_default();
    let word = match (&anchor.state, anchor.exists) {
        (Some(state), _) => word(state),
        (None, Some(false)) => "does not exist",
        (None, _) => "may not be read",
    };
    let mut details = Vec::new();
    if let Some(receipts) = &anchor.receipts {
        let (current, all, sequence) = (receipts.current, receipts.processes, receipts.bundle_sequence);
        details.push(format!("{current} of {all} processes run on bundle {sequence}"));
    }
    if let Some(until) = anchor.serves_without_operator_until {
        details.push(format!("messages go on without the operator until {until} ({})", from_now(until, now)));
    }
    details.extend(anchor.state.iter().flat_map(|state| problems(state, now)));
    Node {
        text: format!("TrustAnchor {}{instance}: {word}", anchor.name),
        details,
        children: anchor.members.iter().map(|member| member_node(member, now)).collect(),
    }
}

fn member_node(member: &MemberReport, now: Timestamp) -> Node {
    let mut details: Vec<String> =
        member.guest_on.iter().map(|server| format!("served as a guest by {server}")).collect();
    details.extend(problems(&member.state, now));
    Node {
        text: format!("Member {}/{} {}: {}", member.namespace, member.name, member.identity, word(&member.state)),
        details,
        children: member.servers.iter().map(|server| server_node(server, now)).collect(),
    }
}

fn server_node(server: &ServerReport, now: Timestamp) -> Node {
    let mut text = format!(
        "SecurityServer {}: {}, {}/{} replicas",
        server.name,
        word(&server.state),
        server.ready_replicas,
        server.replicas
    );
    if let (Some(renew), Some(end)) = (server.leaf_renew_at, server.leaf_not_after) {
        let _ = write!(text, ", certificate renewed {}, ends {}", from_now(renew, now), from_now(end, now));
    }
    Node { text, details: problems(&server.state, now).collect(), children: Vec::new() }
}

fn word(state: &State) -> &'static str {
    match (state.ready, state.behind) {
        (true, _) => "Ready",
        (false, true) => "not seen by the operator yet",
        (false, false) => "not Ready",
    }
}

fn problems(state: &State, now: Timestamp) -> impl Iterator<Item = String> {
    state.problems.iter().map(move |problem| {
        let since = from_now(problem.since, now);
        format!("✗ {} {} since {since}: {}", problem.kind, problem.reason, problem.message)
    })
}

/// `in 3d4h` or `12m ago`, in the two largest units.
fn from_now(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.as_second() - now.as_second();
    let length = seconds.unsigned_abs();
    let (days, hours, minutes) = (length / 86_400, length / 3600 % 24, length / 60 % 60);
    let text = match (days, hours, minutes) {
        (0, 0, 0) => format!("{length}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    };
    if seconds > 0 { format!("in {text}") } else { format!("{text} ago") }
}

#[cfg(test)]
mod tests {
    use super::super::report::{build, tests as made};
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:30:00Z".parse().unwrap()
    }

    #[test]
    fn a_tree_names_what_does_not_hold() {
        let members = [
            made::member("a", "ee", &[("Ready", "True")], 1),
            made::member("b", "ee", &[("Ready", "False"), ("Admitted", "False")], 1),
        ];
        let servers = [made::server("a", "m", "True"), made::server("z", "gone", "False")];
        let report = build(Some(&[made::anchor("ee", "True")]), &members, &servers);
        let expected = "\
TrustAnchor ee (EE): Ready
│   1 of 2 processes run on bundle 3
│   messages go on without the operator until 2026-01-04T00:00:00Z (in 2d22h)
├─ Member a/m GOV/7: Ready
│  └─ SecurityServer ss1: Ready, 1/2 replicas, certificate renewed in 8d22h, ends in 14d22h
└─ Member b/m GOV/7: not Ready
       served as a guest by a/ss1
       ✗ Admitted ReasonFor since 1h30m ago: Admitted is False
SecurityServer ss1: not Ready, 1/2 replicas, certificate renewed in 8d22h, ends in 14d22h in z: its member is not there
    ✗ Ready ReasonFor since 1h30m ago: Ready is False
";
        assert_eq!(render(&report, now()), expected);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let member = made::member("a", "xx", &[("Ready", "True")], 2);
        let text = render(&build(Some(&[]), std::slice::from_ref(&member), &[]), now());
        assert!(text.starts_with("TrustAnchor xx: does not exist\n"), "{text}");
        assert!(text.contains("not seen by the operator yet"), "{text}");
        let text = render(&build(None, &[member], &[]), now());
        assert!(text.starts_with("TrustAnchor xx: may not be read\n"), "{text}");
        assert!(render(&build(Some(&[]), &[], &[]), now()).starts_with("No trust anchors"));
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, expected) in [
            (0, "0s ago"),
            (59, "in 59s"),
            (60, "in 1m"),
            (-3599, "59m ago"),
            (3600, "in 1h0m"),
            (86_399, "in 23h59m"),
            (86_400, "in 1d0h"),
        ] {
            let time = Timestamp::from_second(now().as_second() + seconds).unwrap();
            assert_eq!(from_now(time, now()), expected);
        }
    }
}
