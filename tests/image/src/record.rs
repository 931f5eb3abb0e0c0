//! What scenarios leave for the benchmarks: how many power cuts of an update were tried, and how many of them the box survived.
//!
//! Out: `target/image-tests/power-cuts/<scenario>.json`, written anew with each cut and with each good end, so that a scenario that fails leaves what it
//! had come to: more cuts tried than survived.

use crate::{Architecture, Images, site};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{fs, io::Write as _, path::PathBuf};

/// The power cuts of a scenario.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCuts {
    /// What is updated from and to: the root hashes of both images.
    pub images: [String; 2],
    /// Cuts of the power so far.
    pub tried: u32,
    /// Cuts after which the update came to its good end.
    pub survived: u32,
    #[serde(skip)]
    file: PathBuf,
}

impl PowerCuts {
    /// Begins the record of a scenario anew; what an earlier run left is gone.
    pub fn begin(scenario: &str) -> Result<Self> {
        let images = Images::given()?;
        let hash = |variant| -> Result<String> {
            let text = fs::read(images.of(variant, Architecture::Amd64)?.only("image.json")?)?;
            let described: serde_json::Value = serde_json::from_slice(&text)?;
            Ok(described["usrHash"].as_str().unwrap_or_default().to_owned())
        };
        let directory = site::place("power-cuts");
        fs::create_dir_all(&directory)?;
        let record = Self {
            images: [hash("one")?, hash("two")?],
            tried: 0,
            survived: 0,
            file: directory.join(scenario).with_extension("json"),
        };
        record.write()?;
        Ok(record)
    }

    /// The power was cut.
    pub fn cut(&mut self) -> Result<()> {
        self.tried += 1;
        self.write()
    }

    /// The update came to its good end after all cuts so far.
    pub fn ended_well(&mut self) -> Result<()> {
        self.survived = self.tried;
        self.write()
    }

    fn write(&self) -> Result<()> {
        Ok(fs::File::create(&self.file)?.write_all(&serde_json::to_vec(self)?)?)
    }
}
