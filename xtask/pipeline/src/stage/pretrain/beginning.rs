//! What a training begins with.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use fusion_core::checkpoint::Checkpoint;
use fusion_core::lineage::Lineage;
use t5_model::optimizer::OptimizerState;
use t5_model::text::Tokenizer;
use t5_model::{Initialization, T5Config, parameter_table};

use super::{Pretrain, Start};
use crate::checkpoint::{Beside, Made, lineage_to_continue, tokenizer_of};
use crate::stage::{Input, Vocabulary};

/// The model that training starts from.
pub struct Beginning {
    pub config: T5Config,
    /// Of weights that no checkpoint gives.
    pub init: Initialization,
    pub lineage: Lineage,
    pub checkpoint: Option<Checkpoint>,
    /// Stored with the checkpoint, if training continues with it.
    pub optimizer: Option<OptimizerState>,
    /// The files that the trained model gets from it.
    pub beside: Beside,
}

impl Beginning {
    /// That of a training whose model, if it is given, is in `from`.
    pub fn of(pretrain: &Pretrain, from: Option<&Path>, tokenizer: &Tokenizer) -> Result<Self> {
        let directory = match (&pretrain.start, from) {
            (Start::Random(dimensions), _) => {
                let config = dimensions.config(&Vocabulary::of(tokenizer))?;
                let lineage = Lineage::default();
                let (init, beside) = (dimensions.init, Beside::default());
                return Ok(Beginning { config, init, lineage, checkpoint: None, optimizer: None, beside });
            }
            (Start::Model(Input::Path(path)), None) => path.as_path(),
            (Start::Model(input), None) => bail!("the model of stage {input} is not known"),
            (Start::Model(_), Some(path)) => path,
        };
        let (checkpoint, config) = T5Config::open(directory)?;
        let place = directory.display();
        if let Some(own) = tokenizer_of(directory)? {
            ensure!(
                own.fingerprint() == tokenizer.fingerprint(),
                "{place} was trained with another tokenizer than the one given"
            );
        }
        ensure!(
            tokenizer.vocab_size() <= config.vocab_size,
            "the tokenizer has {} tokens, but the model in {place} only {}",
            tokenizer.vocab_size(),
            config.vocab_size
        );
        let optimizer = match pretrain.settings.carry_optimizer {
            true => {
                let state = OptimizerState::open(directory, &checkpoint.blake3()?)?;
                state.check(&pretrain.settings.optimizer, &parameter_table(&config)?)?;
                Some(state)
            }
            false => None,
        };
        let lineage = lineage_to_continue(&checkpoint)?;
        let beside = Beside::of(&[("", directory)], Made::Another)?;
        let init = Initialization::default();
        Ok(Beginning { config, init, lineage, checkpoint: Some(checkpoint), optimizer, beside })
    }
}
