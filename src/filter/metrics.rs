//! Counters and gauges of the host. Their names are a bounded set: see `observe`.

use std::collections::HashMap;

use super::abi::{self, Metric};

/// The host's numbers for metrics, by name.
#[derive(Default)]
pub struct Metrics {
    ids: HashMap<String, u32>,
}

impl Metrics {
    /// Increases a counter.
    pub fn add(&mut self, name: &str, count: u64) {
        if let Some(id) = self.id(Metric::Counter, name) {
            abi::increment_metric(id, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets gauges.
    pub fn show(&mut self, gauges: Vec<(String, u64)>) {
        for (name, value) in gauges {
            if let Some(id) = self.id(Metric::Gauge, &name) {
                abi::record_metric(id, value);
            }
        }
    }

    fn id(&mut self, kind: Metric, name: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let id = abi::define_metric(kind, name)?;
        self.ids.insert(name.to_owned(), id);
        Some(id)
    }
}
