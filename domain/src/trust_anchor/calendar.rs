//! When a change of the authority begins: because somebody asks for it or because of its age, and in a maintenance window.

use cronexpr::{Crontab, MakeTimestamp, parse_crontab};
use jiff::{SignedDuration, Timestamp};
use saatkond_api::TrustAnchor;
use saatkond_api::v1alpha1::trust_anchor::{DEFAULT_START_AT_PERCENT, MaintenanceWindow, Rotation};

use super::authority::retirement;
use crate::rotation::Standing;
use crate::schedule::{later, whole_seconds};

/// A change that should begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// What it is called.
    pub request: String,
    /// From when on: a time that is over, or one to come.
    pub at: Timestamp,
}

/// The life of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// Its certificate's notBefore.
    pub begins: Timestamp,
    /// Its certificate's notAfter.
    pub ends: Timestamp,
}

/// The next change, given the life of the authority that issues. What somebody asks for comes first.
pub(super) fn due(anchor: &TrustAnchor, standing: &Standing, life: Life, now: Timestamp) -> Option<Due> {
    let none = Rotation::default();
    let spec = anchor.spec.rotation.as_ref().unwrap_or(&none);
    // What is to be cancelled before it has begun does not begin.
    let asked = spec.request_id.as_ref().filter(|asked| spec.cancel.as_ref() != Some(asked));
    let asked = asked.filter(|asked| !standing.requests.contains(asked));
    let percent = i64::from(spec.start_at_percent.unwrap_or(DEFAULT_START_AT_PERCENT));
    let seconds = life.ends.duration_since(life.begins).as_secs().max(0);
    let aged = later(life.begins, SignedDuration::from_secs(seconds / 100 * percent + seconds % 100 * percent / 100));
    let (request, from) = match asked {
        Some(asked) => (asked.clone(), now),
        // It would begin again the moment it is undone.
        None if spec.cancel.is_some() && spec.cancel.as_ref() == standing.requests.last() => return None,
        // Another name at each attempt: a number that was announced once never comes again.
        None => (format!("scheduled-{}", standing.highest + 1), aged),
    };
    // From here on certificates would be cut short, and at last none could be issued.
    let lifetime = anchor.spec.leaf_policy.max_lifetime.as_signed();
    let kept_free = retirement(anchor).saturating_add(lifetime.saturating_mul(2));
    let floor = life.ends.checked_sub(kept_free).unwrap_or(Timestamp::MIN).max(from);
    let opens = open_from(&spec.windows, from.max(now));
    let at = if spec.windows.is_empty() { from } else { opens.map_or(floor, |opens| opens.min(floor)) };
    Some(Due { request, at: whole_seconds(at) })
}

/// What is wrong with the windows, by field.
pub(super) fn problem(anchor: &TrustAnchor, now: Timestamp) -> Option<String> {
    let windows = anchor.spec.rotation.as_ref().map(|rotation| rotation.windows.as_slice()).unwrap_or_default();
    windows.iter().enumerate().find_map(|(index, window)| {
        let why = opens(window, now).err()?;
        let MaintenanceWindow { cron, time_zone, .. } = window;
        Some(format!("spec.rotation.windows[{index}], {cron:?} in {time_zone}: {why}; no change begins because of it"))
    })
}

/// The first moment from `from` on at which one of the windows is open. `None` if none ever is.
fn open_from(windows: &[MaintenanceWindow], from: Timestamp) -> Option<Timestamp> {
    windows.iter().filter_map(|window| opens(window, from).ok()).min()
}

/// The first moment from `from` on at which it is open, or why there is none. Those words hold at any time: a condition with the time in it
/// would be written again at every look.
fn opens(window: &MaintenanceWindow, from: Timestamp) -> Result<Timestamp, String> {
    let crontab: Crontab =
        parse_crontab(&format!("{} {}", window.cron, window.time_zone)).map_err(|error| last_line(&error))?;
    // The first opening whose end is not over.
    let after = from.checked_sub(window.duration.as_signed()).unwrap_or(Timestamp::MIN);
    let opening = crontab.find_next(MakeTimestamp(after)).map_err(|_| "it opens at no time within four years")?;
    Ok(opening.timestamp().max(from))
}

/// The error draws the expression, and points at the place on its last line; a condition has one line.
fn last_line(error: &cronexpr::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches([' ', '^']).to_owned()
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]
mod tests {
    use saatkond_api::duration::Period;
    use serde_json::{Value, json};

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(cron: &str, time_zone: &str, hours: u32) -> MaintenanceWindow {
        MaintenanceWindow { cron: cron.into(), time_zone: time_zone.into(), duration: Period::hours(hours) }
    }

    /// An authority of a year, `retirement` a day and leaves of fifteen days: the floor is the first of December.
    fn life() -> Life {
        Life { begins: time("2027-01-01T00:00:00Z"), ends: time("2028-01-01T00:00:00Z") }
    }

    fn anchor(rotation: Value) -> TrustAnchor {
        let spec = json!({
            "instance": "EE", "source": {"managed": {}}, "leafPolicy": {"maxLifetime": "360h"}, "rotation": rotation,
        });
        TrustAnchor::new("ee", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_window_opens_by_the_clock_of_its_time_zone() {
        let nights = window("0 2 * * 1-4", "Europe/Tallinn", 3);
        for (name, from, expected) in [
            ("on Sunday", "2027-01-03T12:00:00Z", "2027-01-04T00:00:00Z"),
            ("one second before", "2027-01-03T23:59:59Z", "2027-01-04T00:00:00Z"),
            ("exactly at", "2027-01-04T00:00:00Z", "2027-01-04T00:00:00Z"),
            ("its last second", "2027-01-04T02:59:59Z", "2027-01-04T02:59:59Z"),
            ("as it closes", "2027-01-04T03:00:00Z", "2027-01-05T00:00:00Z"),
            ("in summer time", "2027-07-05T12:00:00Z", "2027-07-05T23:00:00Z"),
        ] {
            assert_eq!(opens(&nights, time(from)).unwrap(), time(expected), "{name}");
        }
    }

    #[test]
    fn time_zones_are_part_of_the_binary() {
        let known = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Tallinn");
        assert!(known.is_ok(), "the image has no zoneinfo: {known:?}");
    }

    #[test]
    fn a_window_that_cannot_be_read_or_never_opens_is_named() {
        for (cron, zone, why) in [
            (
                "61 2 * * *",
                "UTC",
                "\"61 2 * * *\" in UTC: value must be in range 0..=59; found 61; no change begins because of it",
            ),
            ("0 2 * * *", "Europe/Tartu", "\"0 2 * * *\" in Europe/Tartu: "),
            ("0 2 30 2 *", "UTC", "in UTC: it opens at no time within four years; no change"),
        ] {
            let anchor = anchor(
                json!({"windows": [{"cron": "0 2 * * *", "duration": "1h"}, {"cron": cron, "timeZone": zone, "duration": "1h"}]}),
            );
            let later = problem(&anchor, life().ends);
            let problem = problem(&anchor, life().begins).unwrap();
            assert_eq!(Some(&problem), later.as_ref(), "it would be written again at every look");
            assert!(problem.starts_with("spec.rotation.windows[1], ") && problem.contains(why), "{problem}");
            assert!(!problem.contains(['\n', '^']), "{problem}");
        }
        assert_eq!(problem(&anchor(json!({})), life().begins), None);
    }

    #[test]
    fn a_change_begins_at_its_time() {
        let at_two = json!([{"cron": "0 2 * * *", "duration": "1h"}]);
        let never = json!([{"cron": "0 2 30 2 *", "duration": "1h"}]);
        let nights = json!({"windows": at_two});
        let asked = json!({"requestID": "r"});
        let asked_at_night = json!({"requestID": "r", "windows": at_two});
        let taken_back = json!({"requestID": "r", "cancel": "r"});
        let (new_year, half, late) = ("2027-01-02T03:00:00Z", "2027-07-02T12:00:00Z", "2027-12-05T12:00:00Z");
        for (name, rotation, now, request, at) in [
            ("half of its life, long before", json!({}), new_year, "scheduled-2", half),
            ("and long after", json!({}), late, "scheduled-2", half),
            ("a quarter", json!({"startAtPercent": 25}), new_year, "scheduled-2", "2027-04-02T06:00:00Z"),
            ("asked for", asked, new_year, "r", new_year),
            ("in a window to come", nights.clone(), half, "scheduled-2", "2027-07-03T02:00:00Z"),
            ("in an open one", nights.clone(), "2027-07-03T02:30:00Z", "scheduled-2", "2027-07-03T02:30:00Z"),
            ("asked for, in a window", asked_at_night.clone(), new_year, "r", "2027-01-03T02:00:00Z"),
            ("no window ever", json!({"windows": never}), half, "scheduled-2", "2027-12-01T00:00:00Z"),
            ("past the floor", nights, late, "scheduled-2", "2027-12-01T00:00:00Z"),
            ("asked for past the floor", asked_at_night, late, "r", late),
            ("cancelled before it began", taken_back, new_year, "scheduled-2", half),
        ] {
            let due = due(&anchor(rotation), &Standing::first(1), life(), time(now)).unwrap();
            assert_eq!((due.request.as_str(), due.at), (request, time(at)), "{name}");
        }
    }

    #[test]
    fn what_was_undone_does_not_begin_again_until_the_cancel_is_taken_back() {
        let standing = Standing { highest: 2, requests: vec!["scheduled-2".into()], ..Standing::first(1) };
        let now = life().ends;
        assert_eq!(due(&anchor(json!({"cancel": "scheduled-2"})), &standing, life(), now), None);
        assert_eq!(due(&anchor(json!({})), &standing, life(), now).unwrap().request, "scheduled-3");
        let asked = anchor(json!({"cancel": "scheduled-2", "requestID": "r"}));
        assert_eq!(due(&asked, &standing, life(), now).unwrap().request, "r");
    }
}
