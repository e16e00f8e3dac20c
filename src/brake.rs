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
    /// The class.
    pub cost: Cost,
    /// When there is room again.
    pub retry_after: Duration,
}

/// Counts our own verifications: a second's worth may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Brake {
    rates: Rates,
    budgets: [Budget; Cost::ALL.len()],
}

impl Brake {
    /// A brake that is open.
    pub fn new(rates: Rates, now: UnixTime) -> Self {
        Self { rates, budgets: Cost::ALL.map(|cost| Budget::full(rates.of(cost), now)) }
    }

    /// Takes one verification out of the budget of its class.
    ///
    /// # Errors
    /// If none is left.
    pub fn take(&mut self, cost: Cost, now: UnixTime) -> Result<(), Braked> {
        let rate = self.rates.of(cost);
        let interval = Duration::from_secs(1).checked_div(rate).unwrap_or(Duration::MAX);
        let braked = Braked { cost, retry_after: interval.min(Duration::from_secs(1)) };
        let budget = Cost::ALL.iter().zip(&mut self.budgets).find(|(class, _)| **class == cost);
        let (_, budget) = budget.ok_or(braked)?;
        *budget = budget.refill(interval, rate, now);
        if budget.take() { Ok(()) } else { Err(braked) }
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
        let braked = Braked { cost: Cost::Heavy, retry_after: Duration::from_secs(1) };
        assert_eq!(brake.take(Cost::Heavy, now), Err(braked));
        assert_eq!([brake.take(Cost::Medium, now), brake.take(Cost::Medium, now)], [Ok(()), Ok(())]);
        let braked = Braked { cost: Cost::Medium, retry_after: Duration::from_millis(500) };
        assert_eq!(brake.take(Cost::Medium, now), Err(braked));
        assert_eq!(brake.take(Cost::Medium, now.after(Duration::from_millis(500))), Ok(()));
        assert_eq!(brake.take(Cost::Light, now), Ok(()));
    }
}
