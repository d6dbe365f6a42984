//! A federation as far as a rotation concerns it: what is published, what each process has mounted, loaded and stated, and what an
//! operator has decided and not yet written. The decision itself is the production one.
//!
//! Each process is a server of its own. Copies beside a process may be of any age, documents and leaves independently.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use jiff::Timestamp;
use saatkond_domain::rotation::{
    Emergency, Held, Observed, Phase, Process, Receipt, Server, Standing, Step, Wish, next_step,
};

use crate::trust::trusts;

/// How much may happen.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many processes there are. All but one serve at the beginning.
    pub processes: usize,
    /// Changes that are asked for.
    pub changes: u8,
    /// Times that somebody asks for a change to be undone.
    pub cancels: u8,
    /// Times that an authority that is trusted is declared to be compromised, at most one.
    pub emergencies: u8,
    /// Whether an operator may write long after it has decided.
    pub slow: bool,
    /// Whether containers may restart in place.
    pub restarts: bool,
    /// Whether sessions are followed: there are two processes then, and both serve at the beginning.
    pub sessions: bool,
}

/// A rule of the protocol that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The next authority is announced beside the old one, not in its place.
    AnnounceBeforeUse,
    /// It issues only after everyone has stated to trust it.
    TrustReceipts,
    /// The old one is dropped only after nobody uses it.
    DropAfterUnused,
    /// A leaf that is stored is not one that is presented.
    LoadedNotStored,
    /// Who has stated nothing has loaded nothing.
    MissingIsNotLoaded,
    /// A process that is ending counts.
    TerminatingCount,
    /// A process that is starting counts.
    PendingCount,
    /// The next change begins only after everyone has stated to have dropped the old authority.
    RetireReceipts,
    /// With the link, a process opens its listeners with what is published alone.
    StartBarrier,
    /// Without the link, it opens them only after a peer has answered.
    Alone,
    /// Without the link, its leaf must be of the authority that the newest document names.
    LeafOfTheSigner,
    /// That another authority issues is published, and retiring needs the receipts for it.
    SwitchIsPublished,
    /// What is published replaces what the decision was made on, or is not written.
    WriteIfUnchanged,
    /// Receipts are compared by sequence and issue number, not by what these stood for.
    SequenceNotContent,
    /// The old authority issues again only after everyone has stated to trust both.
    CancelNeedsReceipts,
    /// What a receipt states is saved before it is given.
    SavedBeforeReceipt,
    /// Sessions with leaves of the old authority end before it is dropped.
    SessionsEnd,
}

/// Generations as bits: there are few, and millions of states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generations(u16);

impl Generations {
    fn of(generations: impl IntoIterator<Item = u64>) -> Self {
        Self(generations.into_iter().fold(0, |bits, generation| bits | 1 << generation))
    }

    fn with(self, generation: u64) -> Self {
        Self(self.0 | 1 << generation)
    }

    fn without(self, generation: u64) -> Self {
        Self(self.0 & !(1 << generation))
    }

    fn contains(self, generation: u64) -> bool {
        self.0 >> generation & 1 == 1
    }

    fn is_superset(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Ascending.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        (0..16).filter(move |generation| self.contains(*generation))
    }
}

/// What was published under the sequence that is its place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Document {
    bundle: Generations,
    signing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Life {
    Absent,
    /// Its pod is there, it has read its copies, its listeners are closed.
    Starting,
    /// It has been told that it may open its listeners, and has not yet: whatever it was told on may have changed by then.
    Cleared,
    Serving,
    /// Its pod is being deleted; it still serves.
    Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Member {
    life: Life,
    /// Which document it runs on, by its place in the history.
    document: u8,
    /// Which leaf it presents, by its place in `leaves`.
    leaf: u8,
    /// Document, leaf and sessions of its receipt.
    receipt: Option<(u8, u8, Generations)>,
    /// The generations of all leaves that were ever stored for it; the last is the one that is.
    leaves: Rc<Vec<u64>>,
}

impl Member {
    fn serves(&self) -> bool {
        matches!(self.life, Life::Serving | Life::Ending)
    }

    fn generation(&self) -> u64 {
        self.leaves[usize::from(self.leaf)]
    }

    fn stored(&self) -> u8 {
        u8::try_from(self.leaves.len() - 1).unwrap()
    }
}

/// Something that happens. Processes are told apart by their place in the state that it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Ask,
    Cancel,
    CancelNoMore,
    Declare(u64),
    Decide,
    Forget,
    Publish(Phase, u64),
    PublishLate(Phase, u64),
    Create(u64),
    Destroy(u64),
    Issue(usize),
    Come(usize, u8, u8),
    Clear(usize),
    ClearWithoutLink(usize, u8),
    Serve(usize),
    ReadAgain(usize),
    LoadDocument(usize),
    LoadLeaf(usize),
    State(usize),
    End(usize),
    Restart(usize, u8, u8),
    Goodbye(usize),
    Connect,
    Disconnect,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask => f.write_str("a change is asked for"),
            Self::Cancel => f.write_str("it is to be cancelled"),
            Self::CancelNoMore => f.write_str("it is not to be cancelled any more"),
            Self::Declare(generation) => write!(f, "authority {generation} is compromised"),
            Self::Decide => f.write_str("an operator decides"),
            Self::Forget => f.write_str("it dies before it writes"),
            Self::Publish(phase, signing) => write!(f, "{phase:?} is published, {signing} issues"),
            Self::PublishLate(phase, signing) => write!(f, "it writes: {phase:?}, {signing} issues"),
            Self::Create(generation) => write!(f, "authority {generation} is made"),
            Self::Destroy(generation) => write!(f, "authority {generation} is destroyed"),
            Self::Issue(at) => write!(f, "{at}: a leaf is stored"),
            Self::Come(at, document, leaf) => write!(f, "{at} comes with document {document} and leaf {leaf}"),
            Self::Clear(at) => write!(f, "{at} is told by the link that it may serve"),
            Self::ClearWithoutLink(at, document) => {
                write!(f, "{at} has asked its peers and may serve with document {document}")
            }
            Self::Serve(at) => write!(f, "{at} serves"),
            Self::ReadAgain(at) => write!(f, "{at} reads again"),
            Self::LoadDocument(at) => write!(f, "{at} loads the document"),
            Self::LoadLeaf(at) => write!(f, "{at} loads the leaf"),
            Self::State(at) => write!(f, "{at} states it"),
            Self::End(at) => write!(f, "{at} is told to end"),
            Self::Restart(at, document, leaf) => write!(f, "{at} restarts with document {document} and leaf {leaf}"),
            Self::Goodbye(at) => write!(f, "{at} says goodbye"),
            Self::Connect => f.write_str("they connect"),
            Self::Disconnect => f.write_str("they disconnect"),
        }
    }
}

/// A state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    members: Vec<Member>,
    standing: Rc<Standing>,
    history: Rc<Vec<Document>>,
    held: Generations,
    asked: u8,
    cancel: bool,
    cancels: u8,
    compromised: Option<u64>,
    /// What an operator has decided when so many documents had been published, and may write at any later time.
    slow: Option<(usize, Rc<Standing>, Rc<Standing>)>,
    /// The generations of the leaves of the session between the two processes, where sessions are followed.
    session: Generations,
}

impl World {
    fn newest(&self) -> u8 {
        u8::try_from(self.history.len() - 1).unwrap()
    }

    fn document(&self, at: u8) -> Document {
        self.history[usize::from(at)]
    }
}

/// So much later than anything that a phase is published for that waiting for nobody is over.
const NOW: i64 = 1_000_000;

/// How states follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    limits: Limits,
    broken: Option<Rule>,
}

impl Model {
    pub fn new(limits: Limits, broken: Option<Rule>) -> Self {
        Self { limits, broken }
    }

    fn breaks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }

    /// Everyone who serves does so with the first authority.
    pub fn first(&self) -> World {
        let standing = Standing::first(1);
        let serving = Member {
            life: Life::Serving,
            document: 0,
            leaf: 0,
            receipt: Some((0, 0, Generations::default())),
            leaves: Rc::new(vec![1]),
        };
        let absent = Member { life: Life::Absent, receipt: None, ..serving.clone() };
        let count = self.limits.processes - usize::from(!self.limits.sessions);
        let absent = (!self.limits.sessions).then_some(absent);
        World {
            members: absent.into_iter().chain(std::iter::repeat_n(serving, count)).collect(),
            history: Rc::new(vec![Document { bundle: Generations::of(standing.bundle()), signing: 1 }]),
            standing: Rc::new(standing),
            held: Generations::of([1]),
            asked: 0,
            cancel: false,
            cancels: self.limits.cancels,
            compromised: None,
            slow: None,
            session: Generations::default(),
        }
    }

    /// What must never be: a process that refuses another's leaf, or goes on trusting what has been retired.
    pub fn violation(world: &World) -> Option<String> {
        let serving = || world.members.iter().filter(|member| member.serves());
        for (at, member) in serving().enumerate() {
            let bundle = world.document(member.document).bundle;
            let peers = serving().enumerate().filter(|(other, _)| *other != at).map(|(_, peer)| peer.generation());
            let mut presented = peers.chain(world.session.iter());
            if let Some(refused) = presented.find(|generation| !trusts(bundle, *generation)) {
                let bundle: Vec<_> = bundle.iter().collect();
                return Some(format!("a process that trusts {bundle:?} refuses a leaf of {refused}"));
            }
            if world.standing.phase == Phase::Stable && bundle != Generations::of(world.standing.bundle()) {
                let bundle: Vec<_> = bundle.iter().collect();
                return Some(format!(
                    "a process trusts {bundle:?} after all but {} is retired",
                    world.standing.signing
                ));
            }
        }
        None
    }

    /// Whether everything that may be asked for has been, and is done.
    pub fn is_done(&self, world: &World) -> bool {
        let standing = &world.standing;
        world.asked == self.limits.changes
            && standing.phase == Phase::Stable
            && standing.highest > u64::from(world.asked)
    }

    /// Every event that may come next. Processes are alike: which of them is in which state makes no other world.
    pub fn successors(&self, world: &World) -> Vec<(Event, World)> {
        let mut next = Next { world, found: Vec::with_capacity(24) };
        self.people(&mut next);
        self.operators(&mut next);
        for at in 0..world.members.len() {
            self.process(at, &mut next);
        }
        self.sessions(&mut next);
        for (_, world) in &mut next.found {
            world.members.sort_unstable();
        }
        next.found
    }

    fn people(&self, next: &mut Next<'_>) {
        let world = next.world;
        if world.asked < self.limits.changes && world.standing.phase == Phase::Stable {
            next.add(Event::Ask, |world| world.asked += 1);
        }
        if world.cancels > 0 && !world.cancel && world.standing.phase != Phase::Stable {
            next.add(Event::Cancel, |world| (world.cancel, world.cancels) = (true, world.cancels - 1));
        }
        if world.cancel {
            next.add(Event::CancelNoMore, |world| world.cancel = false);
        }
        if self.limits.emergencies > 0 && world.compromised.is_none() {
            for generation in world.standing.bundle() {
                next.add(Event::Declare(generation), |world| world.compromised = Some(generation));
            }
        }
    }

    /// What an operator sees, as far as the broken rule lets it look.
    fn observed(&self, world: &World) -> Observed {
        let servers = world.members.iter().map(|member| {
            let counts = match member.life {
                Life::Absent => false,
                Life::Starting | Life::Cleared => !self.breaks(Rule::PendingCount),
                Life::Serving => true,
                Life::Ending => !self.breaks(Rule::TerminatingCount),
            };
            let process = || Process { pod: String::new(), vanished: false, receipt: self.receipt(world, member) };
            Server {
                name: (String::new(), String::new()),
                issue_number: u64::from(member.stored()),
                issuers: vec![member.leaves[usize::from(member.stored())]],
                processes: counts.then(process).into_iter().collect(),
            }
        });
        Observed {
            standing: (*world.standing).clone(),
            sequence: u64::from(world.newest()),
            since: Timestamp::from_second(0).unwrap(),
            held: world.held.iter().map(|generation| (generation, Held::Good)).collect(),
            servers: servers.collect(),
            link_issuer: None,
            wish: Wish {
                begin: (world.asked > 0).then(|| world.asked.to_string()),
                cancel: world.cancel,
                paused: false,
                emergency: world.compromised.map(|compromised| Emergency {
                    compromised,
                    servers: BTreeSet::new(),
                    drop_at: None,
                }),
            },
        }
    }

    fn receipt(&self, world: &World, member: &Member) -> Option<Receipt> {
        let (newest, stored) = (u64::from(world.newest()), u64::from(member.stored()));
        let current =
            || Receipt { sequence: newest, same_bundle: true, issue_number: stored, sessions: Some(Vec::new()) };
        let Some((document, leaf, sessions)) = member.receipt else {
            return self.breaks(Rule::MissingIsNotLoaded).then(current);
        };
        let switching = matches!(world.standing.phase, Phase::Switching { .. });
        let forged = match self.broken {
            Some(Rule::TrustReceipts) => matches!(world.standing.phase, Phase::Announcing { .. }),
            Some(Rule::DropAfterUnused) => switching,
            Some(Rule::RetireReceipts) => matches!(world.standing.phase, Phase::Retiring { .. } | Phase::Stable),
            _ => false,
        };
        if forged {
            return Some(current());
        }
        let (mut sequence, mut issue_number) = (u64::from(document), u64::from(leaf));
        let mut sessions: Vec<_> = sessions.iter().collect();
        match self.broken {
            Some(Rule::LoadedNotStored) => issue_number = stored,
            Some(Rule::SessionsEnd) => sessions.clear(),
            Some(Rule::SwitchIsPublished) if switching && sequence + 1 == newest => sequence = newest,
            Some(Rule::SequenceNotContent) => {
                if world.document(document).bundle.is_superset(world.document(world.newest()).bundle) {
                    sequence = newest;
                }
                if Some(&member.leaves[usize::from(leaf)]) == member.leaves.last() {
                    issue_number = stored;
                }
            }
            Some(Rule::CancelNeedsReceipts) if switching && world.cancel => sequence = newest,
            _ => {}
        }
        Some(Receipt { sequence, same_bundle: true, issue_number, sessions: Some(sessions) })
    }

    fn operators(&self, next: &mut Next<'_>) {
        let world = next.world;
        match next_step(&self.observed(world), Timestamp::from_second(NOW).unwrap()) {
            Step::Publish(standing) => {
                let (event, standing) = (Event::Publish(standing.phase, standing.signing), Rc::new(standing));
                if self.limits.slow && world.slow.is_none() {
                    let decided = (world.history.len(), world.standing.clone(), standing.clone());
                    next.add(Event::Decide, |world| world.slow = Some(decided));
                }
                next.add(event, |world| self.publish(world, standing));
            }
            Step::Create(generation) => {
                next.add(Event::Create(generation), |world| world.held = world.held.with(generation));
            }
            Step::Destroy(generation) => {
                next.add(Event::Destroy(generation), |world| world.held = world.held.without(generation));
            }
            Step::Rest | Step::Wait { .. } | Step::KeyMissing(_) => {}
        }
        if let Some((written, on, standing)) = &world.slow {
            next.add(Event::Forget, |world| world.slow = None);
            if (*written == world.history.len() && *on == world.standing) || self.breaks(Rule::WriteIfUnchanged) {
                next.add(Event::PublishLate(standing.phase, standing.signing), |world| {
                    world.slow = None;
                    self.publish(world, standing.clone());
                });
            }
        }
        let signing = world.standing.signing;
        for (at, member) in world.members.iter().enumerate() {
            if member.leaves.last() != Some(&signing) && world.held.contains(signing) {
                next.add(Event::Issue(at), |world| Rc::make_mut(&mut world.members[at].leaves).push(signing));
            }
        }
    }

    fn publish(&self, world: &mut World, standing: Rc<Standing>) {
        if standing.is_news(&world.standing) {
            let bundle = match standing.phase {
                Phase::Announcing { next } if self.breaks(Rule::AnnounceBeforeUse) => Generations::of([next]),
                _ => Generations::of(standing.bundle()),
            };
            Rc::make_mut(&mut world.history).push(Document { bundle, signing: standing.signing });
        }
        world.standing = standing;
    }

    fn process(&self, at: usize, next: &mut Next<'_>) {
        let member = &next.world.members[at];
        let (newest, stored) = (next.world.newest(), member.stored());
        let copies = || (0..=newest).flat_map(move |document| (0..=stored).map(move |leaf| (document, leaf)));
        match member.life {
            Life::Absent => {
                for (document, leaf) in copies() {
                    next.member(Event::Come(at, document, leaf), at, |member| {
                        (member.life, member.document, member.leaf) = (Life::Starting, document, leaf);
                    });
                }
            }
            Life::Starting => {
                let current = member.document == newest && member.leaf == stored;
                if current || self.breaks(Rule::StartBarrier) {
                    next.member(Event::Clear(at), at, |member| member.life = Life::Cleared);
                }
                if !current {
                    next.member(Event::ReadAgain(at), at, |member| (member.document, member.leaf) = (newest, stored));
                }
                self.start_without_link(at, next);
            }
            Life::Cleared => next.member(Event::Serve(at), at, |member| member.life = Life::Serving),
            Life::Serving => {
                if member.document != newest {
                    next.member(Event::LoadDocument(at), at, |member| member.document = newest);
                }
                if member.leaf != stored {
                    next.member(Event::LoadLeaf(at), at, |member| member.leaf = stored);
                }
                let states = Some((member.document, member.leaf, next.world.session));
                if member.receipt != states {
                    next.member(Event::State(at), at, |member| member.receipt = states);
                }
                next.member(Event::End(at), at, |member| member.life = Life::Ending);
                let receipt = member.receipt.filter(|_| !self.breaks(Rule::SavedBeforeReceipt));
                let saved = receipt.map_or((0, 0), |(document, leaf, _)| (document, leaf));
                // What was stated is on the pod's own volume: nothing older is taken up again.
                let copies = copies().filter(|(document, leaf)| *document >= saved.0 && *leaf >= saved.1);
                for (document, leaf) in copies.filter(|_| self.limits.restarts) {
                    next.member(Event::Restart(at, document, leaf), at, |member| {
                        (member.life, member.document, member.leaf) = (Life::Starting, document, leaf);
                    });
                }
            }
            Life::Ending => next.member(Event::Goodbye(at), at, |member| {
                (member.life, member.document, member.leaf, member.receipt) = (Life::Absent, 0, 0, None);
            }),
        }
    }

    fn start_without_link(&self, at: usize, next: &mut Next<'_>) {
        let world = next.world;
        let member = &world.members[at];
        let peers = world.members.iter().enumerate().filter(|(other, peer)| *other != at && peer.serves());
        let mut offered: Vec<u8> = peers.map(|(_, peer)| peer.document.max(member.document)).collect();
        if self.breaks(Rule::Alone) {
            offered.push(member.document);
        }
        for document in offered {
            let newest = world.document(document);
            let of_the_signer = member.generation() == newest.signing
                || (self.breaks(Rule::LeafOfTheSigner) && newest.bundle.contains(member.generation()));
            if of_the_signer {
                next.member(Event::ClearWithoutLink(at, document), at, |member| {
                    (member.life, member.document) = (Life::Cleared, document);
                });
            }
        }
    }

    fn sessions(&self, next: &mut Next<'_>) {
        let world = next.world;
        if self.limits.sessions && world.members.iter().all(Member::serves) {
            let session = world.members.iter().fold(world.session, |all, member| all.with(member.generation()));
            if session != world.session {
                next.add(Event::Connect, |world| world.session = session);
            }
        }
        if world.session != Generations::default() {
            next.add(Event::Disconnect, |world| world.session = Generations::default());
        }
    }
}

/// What is collected for one state.
struct Next<'a> {
    world: &'a World,
    found: Vec<(Event, World)>,
}

impl Next<'_> {
    fn add(&mut self, event: Event, change: impl FnOnce(&mut World)) {
        let mut next = self.world.clone();
        change(&mut next);
        self.found.push((event, next));
    }

    fn member(&mut self, event: Event, at: usize, change: impl FnOnce(&mut Member)) {
        self.add(event, |world| {
            change(&mut world.members[at]);
            if !world.members[at].serves() {
                world.session = Generations::default();
            }
        });
    }
}
