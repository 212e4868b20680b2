//! The methods by name, and `[balance]`. To add one, write its file and name it here.

use super::uncertainty::Likelihood;
use super::{Method, cagrad, famo, gradnorm, pcgrad, uncertainty, wrong};
use manygate_core::Result;
use manygate_models::config::{Key, parse_section};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The keys of one method.
pub trait Settings: Debug + Send + Sync {
    /// Every key of the method's own with its value, defaults included.
    fn resolved(&self) -> toml::Table;

    /// Checks what can be checked before the losses are known.
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] that names the key and what is allowed.
    fn check(&self) -> Result<()>;

    /// The method over a loss of each of these likelihoods (at least 1), its random numbers keyed by `seed`.
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] when a key does not fit their number.
    fn method(&self, losses: &[Likelihood], seed: u64) -> Result<Box<dyn Method>>;

    /// Patterns of the parameters whose gradient norms [`super::Access::Layer`] asks for; empty leaves the choice to
    /// the caller.
    fn layer(&self) -> &[String] {
        &[]
    }
}

/// What the registry knows of a method.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name under `[balance]`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Citation.
    pub paper: &'static str,
    /// Keys of its own; [`COMMON_KEYS`] come beside them.
    pub own_keys: &'static [Key],
    /// Reads the keys under `[balance]`, the common ones and `method` taken out.
    pub parse: fn(&toml::Table) -> Result<Box<dyn Settings>>,
}

/// Every method, by name.
pub static METHODS: [Entry; 5] =
    [cagrad::ENTRY, famo::ENTRY, gradnorm::ENTRY, pcgrad::ENTRY, uncertainty::ENTRY];

/// Keys that every method has.
pub const COMMON_KEYS: [Key; 1] = [Key {
    name: "losses",
    default: "[]",
    doc: "names of the losses to balance, all others keep weight 1; empty means every task's",
}];

/// The entry called `name`.
///
/// # Errors
/// [`manygate_core::Error::Config`] that lists the names.
pub fn find(name: &str) -> Result<&'static Entry> {
    METHODS.iter().find(|m| m.name == name).ok_or_else(|| {
        wrong("method", format!("there is no method `{name}`; use one of: {}", names().join(", ")))
    })
}

/// Reads a method's own keys.
///
/// # Errors
/// [`manygate_core::Error::Config`] that names the key; for an unknown one it lists those that exist.
pub fn keys<T: for<'de> Deserialize<'de>>(table: &toml::Table) -> Result<T> {
    parse_section("balance", table)
}

/// The keys of `settings`, for [`Settings::resolved`].
pub(super) fn written<T: Serialize>(settings: &T) -> toml::Table {
    toml::Table::try_from(settings).expect("numbers, texts and lists are TOML")
}

/// `[balance]`, read and checked.
#[derive(Debug)]
pub struct Balance {
    entry: &'static Entry,
    losses: Vec<String>,
    settings: Box<dyn Settings>,
}

impl Balance {
    /// Reads a whole `[balance]` table: `method`, the common keys, and the method's own.
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] when the method or a key is unknown, or a value has the wrong type or is out of
    /// its range.
    pub fn from_table(table: &toml::Table) -> Result<Balance> {
        let mut keys = table.clone();
        let name = match keys.remove("method") {
            Some(toml::Value::String(name)) => name,
            Some(other) => return Err(wrong("method", format!("must be a text, not {other}"))),
            None => return Err(wrong("method", format!("is missing; use one of: {}", names().join(", ")))),
        };
        let entry = find(&name)?;
        let losses = match keys.remove("losses") {
            None => Vec::new(),
            Some(list) => list
                .try_into()
                .map_err(|e| wrong("losses", format!("must be a list of names: {}", e.message())))?,
        };
        unique(&losses)?;
        let settings = (entry.parse)(&keys)?;
        settings.check()?;
        Ok(Balance { entry, losses, settings })
    }

    /// The method's entry.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// Names of the losses to balance; empty means every task's.
    pub fn losses(&self) -> &[String] {
        &self.losses
    }

    /// Patterns of the parameters whose gradient norms [`super::Access::Layer`] asks for; empty leaves the choice to
    /// the caller.
    pub fn layer(&self) -> &[String] {
        self.settings.layer()
    }

    /// The whole table, with every default written out.
    pub fn resolved(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("method".into(), self.entry.name.into());
        table.insert("losses".into(), self.losses.clone().into());
        table.extend(self.settings.resolved());
        table
    }

    /// The method over a loss of each of these likelihoods, its random numbers keyed by `seed`.
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] when there is no loss, or when a key does not fit their number.
    pub fn method(&self, losses: &[Likelihood], seed: u64) -> Result<Box<dyn Method>> {
        if losses.is_empty() {
            return Err(wrong("losses", "there is no loss to balance; name at least one"));
        }
        self.settings.method(losses, seed)
    }
}

fn names() -> Vec<&'static str> {
    METHODS.iter().map(|m| m.name).collect()
}

fn unique(losses: &[String]) -> Result<()> {
    let twice = losses.iter().enumerate().find(|(i, name)| losses[..*i].contains(*name));
    twice.map_or(Ok(()), |(_, name)| Err(wrong("losses", format!("names `{name}` twice; once is enough"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Seen;

    fn told(text: &str) -> String {
        Balance::from_table(&text.parse().unwrap()).map(|_| ()).unwrap_err().to_string()
    }

    fn method(text: &str, losses: usize) -> Result<Box<dyn Method>> {
        let balance = Balance::from_table(&text.parse().unwrap()).unwrap();
        balance.method(&vec![Likelihood::Classification; losses], 1)
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        for entry in &METHODS {
            let table = toml::Table::from_iter([("method".to_owned(), entry.name.into())]);
            let mut resolved = Balance::from_table(&table).unwrap().resolved();
            assert_eq!(resolved.remove("method"), Some(entry.name.into()));
            let documented: Vec<&Key> = entry.own_keys.iter().chain(&COMMON_KEYS).collect();
            assert_eq!(resolved.len(), documented.len(), "{}", entry.name);
            for key in documented {
                let line: toml::Table = format!("v = {}", key.default).parse().unwrap();
                assert_eq!(resolved[key.name], line["v"], "{}.{}", entry.name, key.name);
            }
        }
    }

    #[test]
    fn a_resolved_table_reads_back() {
        let text = "method = \"gradnorm\"\nlosses = [\"click\", \"buy\"]\n\
                    layer = [\"experts.*.1.weight\"]\nalpha = 0.12";
        let balance = Balance::from_table(&text.parse().unwrap()).unwrap();
        assert_eq!(balance.losses(), ["click", "buy"]);
        assert_eq!(balance.layer(), ["experts.*.1.weight"]);
        assert_eq!(balance.entry().name, "gradnorm");
        let again = Balance::from_table(&balance.resolved()).unwrap();
        assert_eq!(again.resolved(), balance.resolved());
        assert_eq!(balance.resolved()["alpha"].as_float(), Some(0.12));
    }

    #[test]
    fn wrong_values_are_told_with_their_key() {
        let cases = [
            ("", "balance.method: is missing; use one of: cagrad, famo, gradnorm, pcgrad, uncertainty"),
            ("method = 3", "balance.method: must be a text, not 3"),
            ("method = \"mgd\"", "balance.method: there is no method `mgd`; use one of: cagrad, famo"),
            ("method = \"cagrad\"\nc = -0.5", "balance.c: is -0.5; it must be a number of at least 0"),
            ("method = \"cagrad\"\nc = inf", "balance.c: is inf"),
            ("method = \"cagrad\"\nc = \"half\"", "balance.c: invalid type: string"),
            (
                "method = \"cagrad\"\nrescale = \"cubic\"",
                "balance.rescale: unknown variant `cubic`, expected one of `none`",
            ),
            (
                "method = \"cagrad\"\nalpha = 1.0",
                "balance.alpha: unknown field `alpha`, expected `c` or `rescale`",
            ),
            ("method = \"pcgrad\"\nreduction = \"max\"", "balance.reduction: unknown variant `max`"),
            ("method = \"famo\"\nrate = -1", "balance.rate: is -1"),
            ("method = \"famo\"\nbeta1 = 1.0", "balance.beta1: is 1; it must be at least 0 and below 1"),
            ("method = \"famo\"\nepsilon = 0.0", "balance.epsilon: is 0; it must be above 0"),
            ("method = \"famo\"\nmin_losses = [nan]", "balance.min_losses: is NaN"),
            ("method = \"gradnorm\"\nalpha = -0.1", "balance.alpha: is -0.1"),
            ("method = \"gradnorm\"\nlayer = 3", "balance.layer: invalid type: integer"),
            ("method = \"uncertainty\"\nrate = nan", "balance.rate: is NaN"),
            ("method = \"uncertainty\"\ninitial = 99.0", "balance.initial: is 99; it must be from -20 to 20"),
            ("method = \"famo\"\nlosses = \"click\"", "balance.losses: must be a list of names"),
            ("method = \"famo\"\nlosses = [\"a\", \"b\", \"a\"]", "balance.losses: names `a` twice"),
        ];
        for (text, wanted) in cases {
            let told = told(text);
            assert!(told.contains(wanted), "`{wanted}` is not in `{told}`");
        }
    }

    #[test]
    fn the_number_of_losses_must_fit() {
        let told = |text: &str, losses: usize| method(text, losses).unwrap_err().to_string();
        for entry in &METHODS {
            let text = format!("method = \"{}\"", entry.name);
            assert!(told(&text, 0).contains("balance.losses: there is no loss to balance"));
        }
        assert!(told("method = \"cagrad\"", 13).contains("balance.losses: "));
        assert!(method("method = \"cagrad\"", 12).is_ok());
        let two = "method = \"famo\"\nmin_losses = [0.1, 0.0]";
        assert!(told(two, 3).contains("balance.min_losses: has 2 values for 3 losses"));
        assert!(method(two, 2).is_ok());
    }

    /// A few steps of made-up numbers.
    fn train(method: &mut dyn Method, steps: std::ops::RangeInclusive<u64>) -> Vec<f64> {
        let mut weights = vec![0.0; 3];
        for step in steps {
            let x = step as f64;
            let losses = [0.7 / x, 0.4 + 0.1 / x, 0.2];
            let gram = [2.0, -1.0, 0.3, -1.0, 3.0 + 1.0 / x, -0.5, 0.3, -0.5, 1.0];
            let seen = Seen { step, losses: &losses, gram: &gram, layer_norms: &[1.4, 1.7, x] };
            method.weigh(&seen, &mut weights);
            method.learn(&seen);
            method.learn_again(&losses, &losses.map(|l| 0.9 * l * l));
        }
        weights
    }

    #[test]
    fn every_method_goes_on_from_its_state() {
        for entry in &METHODS {
            let new = || method(&format!("method = \"{}\"", entry.name), 3).unwrap();
            let (mut whole, mut first, mut second) = (new(), new(), new());
            let wanted = train(&mut *whole, 1..=6);
            train(&mut *first, 1..=4);
            second.restore(&first.state()).unwrap();
            assert_eq!(second.state(), first.state(), "{}", entry.name);
            assert_eq!(train(&mut *second, 5..=6), wanted, "{}", entry.name);
            assert_eq!(second.state(), whole.state(), "{}", entry.name);

            let mut longer = first.state();
            longer.push(0.0);
            let before = second.state();
            let told = second.restore(&longer).unwrap_err().to_string();
            assert!(told.contains(&format!("{} values", longer.len() - 1)), "{told}");
            assert_eq!(second.state(), before, "a refused state changes nothing");
        }
    }

    #[test]
    fn one_loss_keeps_its_direction() {
        for entry in &METHODS {
            let mut method = method(&format!("method = \"{}\"", entry.name), 1).unwrap();
            for step in 1..4 {
                let seen = Seen { step, losses: &[0.5], gram: &[4.0], layer_norms: &[2.0] };
                let mut weights = [f64::NAN];
                method.weigh(&seen, &mut weights);
                method.learn(&seen);
                method.learn_again(&[0.5], &[0.4]);
                let wanted = if entry.name == "cagrad" { 1.5 } else { 1.0 };
                assert!((weights[0] - wanted).abs() < 0.01, "{}: {weights:?}", entry.name);
            }
        }
    }

    #[test]
    fn weights_that_come_first_need_nothing() {
        for entry in &METHODS {
            let mut method = method(&format!("method = \"{}\"", entry.name), 3).unwrap();
            if matches!(method.access(), crate::balance::Access::Before | crate::balance::Access::Layer) {
                let mut weights = [0.0; 3];
                method.weigh(&Seen { step: 1, ..Seen::default() }, &mut weights);
                assert_eq!(weights, [1.0; 3], "{}", entry.name);
            }
        }
    }
}
