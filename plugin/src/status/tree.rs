//! The report as people read it.

use std::fmt::Write;

use jiff::Timestamp;
use saatkond_api::v1alpha1::trust_anchor::{ReissuingWave, RotationPhase};

use super::report::{
    AnchorReport, EmergencyReport, MemberReport, ProcessReport, Report, RotationReport, ServerReport, State,
};

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
    for authority in &anchor.authorities {
        let does = if authority.issues { "issues" } else { "is trusted and does not issue" };
        details.push(format!("authority {} {does}, ends {}", authority.generation, from_now(authority.not_after, now)));
    }
    details.extend(anchor.rotation.as_ref().map(|rotation| rotation_line(rotation, now)));
    if let Some(next) = &anchor.next_change {
        details.push(format!(
            "the next change of the authority, {:?}, begins {}",
            next.request,
            from_now(next.at, now)
        ));
    }
    for waiting in &anchor.blocking {
        let place = format!("SecurityServer {}/{}", waiting.namespace, waiting.name);
        let who = waiting.pod_uid.as_ref().map_or_else(|| place.clone(), |pod| format!("pod {pod} of {place}"));
        details.push(format!("✗ {who} {} since {}", waiting.reason, from_now(waiting.since, now)));
    }
    for revoked in &anchor.revocations {
        let place = format!("SecurityServer {}/{}", revoked.namespace, revoked.name);
        details.push(format!(
            "✗ certificates of {place} up to number {} are revoked, {} have confirmed, the last must refuse them {}; not yet: {}",
            revoked.up_to_issue_number,
            revoked.confirmed,
            from_now(revoked.refused_by, now),
            revoked.waiting_for.join(", ")
        ));
    }
    if let Some(emergency) = &anchor.emergency {
        details.extend(emergency_lines(emergency, now));
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

fn emergency_lines(emergency: &EmergencyReport, now: Timestamp) -> Vec<String> {
    let EmergencyReport { compromised_generation, confirmed, waiting_for, refused_by, uncovered_count, uncovered } =
        emergency;
    let mut lines = vec![format!(
        "✗ authority {compromised_generation} is compromised: {confirmed} refuse certificates under it that Saatkond has not issued"
    )];
    if !waiting_for.is_empty() {
        lines.push(format!(
            "  the last must refuse them {}; not yet: {}",
            from_now(*refused_by, now),
            waiting_for.join(", ")
        ));
    }
    if let Some(first) = uncovered.first() {
        lines.push(format!("  {uncovered_count} would fail calls without it, the first: {first}"));
    }
    lines
}

fn rotation_line(rotation: &RotationReport, now: Timestamp) -> String {
    let other = rotation.other_generation.unwrap_or_default();
    let what = match rotation.phase {
        RotationPhase::Stable => "no change".to_owned(),
        RotationPhase::Preparing => "the next authority is made".to_owned(),
        RotationPhase::Announcing => format!("authority {other} is announced"),
        RotationPhase::Switching => {
            let wave = match rotation.wave {
                Some(ReissuingWave::Canary) => ", at one server first",
                Some(ReissuingWave::Tenth) => ", at a tenth of the servers",
                Some(ReissuingWave::All) | None => "",
            };
            format!("certificates are issued anew in the place of those of authority {other}{wave}")
        }
        RotationPhase::Retiring => format!("authority {other} is no longer trusted"),
        RotationPhase::RollingBack => format!("authority {other} is withdrawn"),
    };
    let (phase, since) = (rotation.phase, from_now(rotation.since, now));
    format!("{phase:?} since {since}: {what}; {} processes have stated it", rotation.acknowledged)
}

fn process_node(process: &ProcessReport, now: Timestamp) -> Node {
    let name = if process.pod.is_empty() { &process.pod_uid } else { &process.pod };
    let stated = process.stated.as_ref().map_or_else(
        || "has stated nothing".to_owned(),
        |stated| {
            let since = stated.since.map(|since| format!(" since {}", from_now(since, now))).unwrap_or_default();
            format!("runs on bundle {} with certificate {}{since}", stated.bundle_sequence, stated.leaf_issue_number)
        },
    );
    let text = match process.vanished_at {
        Some(at) => format!("✗ pod {name} has vanished {}, and {stated}", from_now(at, now)),
        None => format!("pod {name} {stated}"),
    };
    Node { text, details: Vec::new(), children: Vec::new() }
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
    let processes = server.processes.iter().map(|process| process_node(process, now));
    Node { text, details: problems(&server.state, now).collect(), children: processes.collect() }
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
│   authority 1 is trusted and does not issue, ends in 3d0h
│   authority 2 issues, ends in 34d0h
│   Switching since 1m ago: certificates are issued anew in the place of those of authority 1, at one server first; 1/2 processes have stated it
│   ✗ pod q of SecurityServer a/ss1 Vanished since 30m ago
│   ✗ certificates of SecurityServer a/ss1 up to number 4 are revoked, 1/2 have confirmed, the last must refuse them in 2d0h; not yet: pod q of SecurityServer a/ss1
│   ✗ authority 1 is compromised: 1/2 refuse certificates under it that Saatkond has not issued
│     the last must refuse them in 2d0h; not yet: pod q of SecurityServer a/ss1
│     3 would fail calls without it, the first: pod q of SecurityServer a/ss1 has not stated anything yet
│   messages go on without the operator until 2026-01-04T00:00:00Z (in 2d22h)
├─ Member a/m GOV/7: Ready
│  └─ SecurityServer ss1: Ready, 1/2 replicas, certificate renewed in 8d22h, ends in 14d22h
│     ├─ pod ss1-0 runs on bundle 3 with certificate 5 since 1h0m ago
│     ├─ ✗ pod q has vanished 30m ago, and has stated nothing
│     └─ pod ss1-2 has stated nothing
└─ Member b/m GOV/7: not Ready
       served as a guest by a/ss1
       ✗ Admitted ReasonFor since 1h30m ago: Admitted is False
SecurityServer ss1: not Ready, 1/2 replicas, certificate renewed in 8d22h, ends in 14d22h in z: its member is not there
│   ✗ Ready ReasonFor since 1h30m ago: Ready is False
├─ pod ss1-0 runs on bundle 3 with certificate 5 since 1h0m ago
├─ ✗ pod q has vanished 30m ago, and has stated nothing
└─ pod ss1-2 has stated nothing
";
        assert_eq!(render(&report, now()), expected);
    }

    #[test]
    fn the_next_change_is_told_before_it_begins() {
        let mut anchor = made::anchor("ee", "True");
        let rotation = anchor.status.as_mut().and_then(|status| status.rotation.as_mut()).unwrap();
        rotation.phase = RotationPhase::Stable;
        let at = "2026-01-08T01:30:00Z".parse::<Timestamp>().unwrap();
        rotation.next_start =
            Some(serde_json::from_value(serde_json::json!({"request": "scheduled-3", "at": at})).unwrap());
        let text = render(&build(Some(&[anchor]), &[], &[]), now());
        assert!(text.contains("the next change of the authority, \"scheduled-3\", begins in 7d0h\n"), "{text}");
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
