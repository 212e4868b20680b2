//! What the environment says of the devices.

use std::env;
use std::str::FromStr;
use std::sync::OnceLock;

/// See the crate's documentation.
pub(crate) struct Knobs {
    pub(crate) devices: usize,
    pub(crate) capability: (u32, u32),
    pub(crate) memory: u64,
    pub(crate) pools: bool,
    pub(crate) driver: (u32, u32),
    pub(crate) seed: u64,
}

impl Knobs {
    /// Those of this process.
    ///
    /// # Panics
    /// When one cannot be read: a test that goes on without it would test something else.
    pub(crate) fn get() -> &'static Knobs {
        static KNOBS: OnceLock<Knobs> = OnceLock::new();
        KNOBS.get_or_init(|| Knobs {
            devices: number("DEVICES", 1),
            capability: version("CAPABILITY", (8, 0)),
            memory: number("MEMORY", 4 << 30),
            pools: number("POOLS", 1) != 0,
            driver: version("DRIVER", (12, 0)),
            seed: number("SEED", 0),
        })
    }
}

fn read<T>(name: &str, otherwise: T, parse: impl Fn(&str) -> Option<T>) -> T {
    let name = format!("MANYGATE_STANDIN_{name}");
    match env::var(&name) {
        Ok(text) => parse(&text).unwrap_or_else(|| panic!("{name}={text} cannot be read")),
        Err(_) => otherwise,
    }
}

fn number<T: FromStr>(name: &str, otherwise: T) -> T {
    read(name, otherwise, |text| text.parse().ok())
}

fn version(name: &str, otherwise: (u32, u32)) -> (u32, u32) {
    read(name, otherwise, |text| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}
