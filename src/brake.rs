//! A brake on our own cryptography: an algorithm that costs much must not be a lever for denial of service.

use std::time::Duration;

use crate::budget::Budget;
use crate::time::UnixTime;

/// What one verification costs the gate, in classes. The figures are those of WebAssembly in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// About a tenth of a millisecond or less: HMAC, RSA up to 4096 bits, Ed25519.
    Light,
    /// Up to a millisecond: ECDSA on 256 bits, larger RSA, ML-DSA.
    Medium,
    /// Several milliseconds: ECDSA on larger curves.
    Heavy,
}

impl Cost {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Light, Self::Medium, Self::Heavy];

    /// The name in the configuration and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Medium => "medium",
            Self::Heavy => "heavy",
        }
    }
}

/// How many verifications of each class the gate makes a second, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For [`Cost::Light`].
    pub light: u32,
    /// For [`Cost::Medium`].
    pub medium: u32,
    /// For [`Cost::Heavy`].
    pub heavy: u32,
}

impl Rates {
    const fn of(self, cost: Cost) -> u32 {
        match cost {
            Cost::Light => self.light,
            Cost::Medium => self.medium,
            Cost::Heavy => self.heavy,
        }
    }
}

/// The gate has verified as many signatures of a class as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Braked {
    /// When there is room again.
    pub retry_after: Duration,
}

/// Counts our own verifications: a second's worth may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Brake {
    classes: [Class; Cost::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Class {
    cost: Cost,
    rate: u32,
    budget: Budget,
    refused: u64,
}

impl Brake {
    /// A brake that is open.
    pub fn new(rates: Rates, now: UnixTime) -> Self {
        let class = |cost| {
            let rate = rates.of(cost);
            Class { cost, rate, budget: Budget::full(rate, now), refused: 0 }
        };
        Self { classes: Cost::ALL.map(class) }
    }

    /// Takes one verification out of the budget of its class.
    ///
    /// # Errors
    /// If none is left.
    pub fn take(&mut self, cost: Cost, now: UnixTime) -> Result<(), Braked> {
        let braked = |interval: Duration| Braked { retry_after: interval.min(Duration::from_secs(1)) };
        let class = self.classes.iter_mut().find(|class| class.cost == cost).ok_or(braked(Duration::MAX))?;
        let interval = Duration::from_secs(1).checked_div(class.rate).unwrap_or(Duration::MAX);
        class.budget = class.budget.refill(interval, class.rate, now);
        if class.budget.take() {
            return Ok(());
        }
        class.refused = class.refused.saturating_add(1);
        Err(braked(interval))
    }

    /// How many verifications of each class were refused since this was asked last.
    pub fn take_refused(&mut self) -> [(Cost, u64); Cost::ALL.len()] {
        self.classes.each_mut().map(|class| (class.cost, std::mem::take(&mut class.refused)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_a_budget_of_its_own() {
        let now = UnixTime::from_secs(1000);
        let mut brake = Brake::new(Rates { light: 3, medium: 2, heavy: 1 }, now);
        assert_eq!(brake.take(Cost::Heavy, now), Ok(()));
        let braked = Braked { retry_after: Duration::from_secs(1) };
        assert_eq!(brake.take(Cost::Heavy, now), Err(braked));
        assert_eq!([brake.take(Cost::Medium, now), brake.take(Cost::Medium, now)], [Ok(()), Ok(())]);
        let braked = Braked { retry_after: Duration::from_millis(500) };
        assert_eq!(brake.take(Cost::Medium, now), Err(braked));
        assert_eq!(brake.take(Cost::Medium, now.after(Duration::from_millis(500))), Ok(()));
        assert_eq!(brake.take(Cost::Light, now), Ok(()));
        assert_eq!(brake.take_refused(), [(Cost::Light, 0), (Cost::Medium, 1), (Cost::Heavy, 1)]);
        assert_eq!(brake.take_refused(), Cost::ALL.map(|cost| (cost, 0)));
    }
}
