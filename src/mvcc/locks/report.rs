//! Who is chosen in a deadlock, and the words for it.

use super::edges::Edge;
use super::owner::Owner;
use super::queue::Request;
use crate::base::deadlock::DeadlockMember;
pub(crate) use crate::engine::VictimPolicy;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

/// A transaction in a cycle, the request it waits with, and what the one before it runs into.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) request: Arc<Request>,
    pub(super) holds: Edge,
}

impl Link {
    pub(super) fn owner(&self) -> &Owner {
        &self.request.owner
    }

    /// What a report says of it, without names of keyspaces.
    pub(super) fn describe(&self, now: Duration) -> DeadlockMember {
        let owner = self.owner();
        let info = owner.info();
        DeadlockMember {
            id: info.id,
            label: info.label.as_deref().map(str::to_string),
            level: info.level,
            priority: info.priority,
            age: now.saturating_sub(info.started),
            writes: owner.writes(),
            prepared: owner.is_prepared(),
            waits_for: self.request.describe(),
            waited: now.saturating_sub(self.request.since),
            holds: self.holds.describe(),
            holds_granted: self.holds.granted(),
        }
    }
}

/// The victim among the members of a cycle, the first of which closed it, and why. Prepared ones are not eligible.
pub(super) fn choose(policy: VictimPolicy, cycle: &[Link]) -> Option<(usize, String)> {
    let eligible: Vec<usize> =
        cycle.iter().enumerate().filter(|(_, link)| !link.owner().is_prepared()).map(|(at, _)| at).collect();
    let priority_of = |at: &usize| cycle.get(*at).map(|link| link.owner().info().priority);
    let lowest = eligible.iter().filter_map(priority_of).min()?;
    let candidates: Vec<usize> =
        eligible.iter().copied().filter(|at| priority_of(at) == Some(lowest)).collect();
    let youth = |at: &usize| cycle.get(*at).map(|link| (link.owner().info().started, link.owner().id()));
    let writes = |at: &usize| cycle.get(*at).map(|link| link.owner().writes());
    let (victim, reason) = match policy {
        _ if candidates.len() == 1 && eligible.len() > 1 => {
            (*candidates.first()?, format!("the lowest priority, {lowest}"))
        }
        _ if eligible.len() == 1 && cycle.len() > 1 => {
            (*eligible.first()?, "the only one that is not prepared".to_string())
        }
        VictimPolicy::Requester if candidates.first() == Some(&0) => {
            (0, "its request closed the cycle".to_string())
        }
        VictimPolicy::FewestWrites => {
            let victim = *candidates.iter().min_by_key(|at| (writes(at), Reverse(youth(at))))?;
            (victim, format!("the fewest writes, {}", writes(&victim)?))
        }
        VictimPolicy::Youngest | VictimPolicy::Requester => {
            (*candidates.iter().max_by_key(|at| youth(at))?, "the youngest".to_string())
        }
    };
    let is_narrowed = candidates.len() < eligible.len() && candidates.len() > 1;
    let among = if is_narrowed { format!(" of those with priority {lowest}") } else { String::new() };
    Some((victim, format!("{reason}{among}")))
}
