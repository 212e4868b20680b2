//! Files and configurations for the tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use manygate_core::Result;
use manygate_data::{DataConfig, Splits, load};
use manygate_features::{FeatureConfig, TaskConfig};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data: DataConfig,
    pub(crate) features: Vec<FeatureConfig>,
    pub(crate) tasks: Vec<TaskConfig>,
}

/// Columns day, user, age, tags, tab, time, click; the rows of day 2 are for validation.
pub(crate) const TRAIN: &str = "day,user,age,tags,tab,time,click\n\
    1,ann,10,\"x,y\",home,100,1\n\
    2,eve,1000,z,home,101,1\n\
    1,bob,30,y,feed,102,0\n\
    1,ann,,,home,103,0\n";

pub(crate) fn config(train: &Path) -> Config {
    let text = r#"
        data = { train = [], valid = { column = "day", values = ["2"] }, scenario = "tab", user = "user", time = "time" }
        features = [
            { kind = "categorical", columns = ["user"] },
            { kind = "numeric", columns = ["age"] },
            { kind = "bag", columns = ["tags"], separator = "," },
        ]
        tasks = [{ name = "click" }]
    "#;
    let mut config: Config = toml::from_str(text).unwrap();
    config.data.train = vec![train.to_path_buf()];
    config
}

pub(crate) fn splits(config: &Config) -> Result<Splits> {
    load(&config.data, &config.features, &config.tasks, &mut |_| {})
}

pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
