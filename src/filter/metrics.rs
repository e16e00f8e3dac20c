//! Counters and gauges of the host. Their names are a bounded set: see `observe`.

use std::collections::HashMap;

use super::abi::{self, Metric};
use crate::config::Config;
use crate::decide::Decision;
use crate::observe::DecisionCounters;

/// The host's numbers for metrics, by name.
#[derive(Default)]
pub struct Metrics {
    ids: HashMap<String, u32>,
    decisions: DecisionCounters,
}

impl Metrics {
    /// Counts a decision.
    pub fn count(&mut self, config: &Config, decision: &Decision) {
        let ids = &mut self.ids;
        for counter in self.decisions.of(config, decision, |name| id(ids, Metric::Counter, name)) {
            abi::increment_metric(*counter, 1);
        }
    }

    /// Increases a counter.
    pub fn add(&mut self, name: &str, count: u64) {
        if let Some(id) = id(&mut self.ids, Metric::Counter, name) {
            abi::increment_metric(id, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets gauges.
    pub fn show(&mut self, gauges: Vec<(String, u64)>) {
        for (name, value) in gauges {
            if let Some(id) = id(&mut self.ids, Metric::Gauge, &name) {
                abi::record_metric(id, value);
            }
        }
    }
}

fn id(ids: &mut HashMap<String, u32>, kind: Metric, name: &str) -> Option<u32> {
    if let Some(id) = ids.get(name) {
        return Some(*id);
    }
    let id = abi::define_metric(kind, name)?;
    ids.insert(name.to_owned(), id);
    Some(id)
}
