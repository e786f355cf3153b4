//! `stack`: more blocks of the same width. Copies of the blocks follow all of the model's own (Gong et al.,
//! *Efficient Training of BERT by Progressively Stacking*, ICML 2019) or each follows its original (Chang et
//! al., arXiv 1710.10348). Active copies do not preserve the function. Silent copies, whose output
//! projections are zero, do (Shen et al., *Staged Training*, arXiv 2203.06211; LLaMA Pro, arXiv 2401.02415):
//! they add nothing until they are trained.

use fusion_core::grow::{DirectSum, direct_sum};
use fusion_core::plan::{FusionPlan, Normalisation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    FusionParent, Grown, GrowthMethod, MethodSettings, Paper, Promise, Recorded, SettingsError, first,
};
use crate::Result;
use crate::parameters::{Block, table_with_blocks};

/// Where copies of blocks go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Arrangement {
    /// All blocks, then their copies.
    ///
    /// As 0 1 2 0 1 2.
    #[default]
    Repeat,
    /// Each block followed by its copies.
    ///
    /// As 0 0 1 1 2 2.
    Interleave,
}

/// What copies of blocks do initially.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NewBlocks {
    /// The same as their originals.
    #[default]
    Active,
    /// Nothing until they learn: their output projections are zero.
    ///
    /// Preserves the function.
    Silent,
}

/// The method's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The factor for the numbers of encoder and decoder blocks.
    pub times: usize,
    /// Where the copies go.
    pub arrangement: Arrangement,
    /// What the copies do initially.
    pub new_blocks: NewBlocks,
}

impl Stack {
    fn blocks(&self, own: usize) -> Vec<Block> {
        let block = |at: usize| match self.arrangement {
            Arrangement::Repeat => (at % own, at / own),
            Arrangement::Interleave => (at / self.times, at % self.times),
        };
        let blocks = (0..own.saturating_mul(self.times)).map(block);
        blocks
            .map(|(own, copy)| match self.new_blocks {
                NewBlocks::Silent if copy > 0 => Block::Silent(own),
                _ => Block::Own(own),
            })
            .collect()
    }

    /// The gradient at a parameter's placements, in units of the parent's: zero behind a silent output, the
    /// parent's own elsewhere; unknown where active copies change what the model computes.
    fn gradient(&self, name: &str, [encoder, decoder]: [usize; 2]) -> Option<f64> {
        if self.new_blocks == NewBlocks::Active && self.times > 1 {
            return None;
        }
        let silent = |stack: &str, own: usize| {
            let blocks = self.blocks(own).into_iter().enumerate();
            let mut silent = blocks.filter(|(_, block)| matches!(block, Block::Silent(_)));
            silent.any(|(index, _)| name.starts_with(&format!("{stack}.block.{index}.")))
        };
        Some(if silent("encoder", encoder) || silent("decoder", decoder) { 0.0 } else { 1.0 })
    }
}

impl GrowthMethod for Stack {
    const NAME: &'static str = "stack";
    const PAPER: Paper =
        Paper { name: "progressive stacking", url: "https://proceedings.mlr.press/v97/gong19a.html" };
    const SUMMARY: &'static str =
        "Stacking: repeats all blocks N times; keeps the predictions only if new blocks are silent";
    const OPTIONS: &'static [&'static str] = &["times", "arrangement", "new_blocks", "optimizer"];

    fn from_settings(settings: &MethodSettings) -> Self {
        Stack {
            times: settings.times(),
            arrangement: settings.arrangement.unwrap_or_default(),
            new_blocks: settings.new_blocks.unwrap_or_default(),
        }
    }

    fn check(settings: &MethodSettings) -> Result<(), SettingsError> {
        match settings.new_blocks {
            Some(NewBlocks::Silent) => Ok(()),
            _ if settings.carries() => Err(SettingsError::StackedState),
            _ => Ok(()),
        }
    }

    fn recorded(settings: &MethodSettings, _: &FusionPlan) -> Recorded {
        vec![
            ("times", Some(json!(settings.times()))),
            ("arrangement", settings.arrangement.map(|arrangement| json!(arrangement))),
            ("new_blocks", settings.new_blocks.map(|new_blocks| json!(new_blocks))),
        ]
    }

    fn promise(plan: &FusionPlan) -> Promise {
        let is_silent = plan.params.iter().any(|param| !param.absent.is_empty());
        if is_silent { Promise::Parent } else { Promise::Other }
    }

    fn plan(&self, parents: &[FusionParent]) -> Result<Grown> {
        let parent = first(parents)?;
        let mut child = parent.config.clone();
        child.num_layers = child.num_layers.saturating_mul(self.times);
        child.set_num_decoder_layers(parent.config.num_decoder_layers().saturating_mul(self.times));
        child.validate()?;
        let own = [parent.config.num_layers, parent.config.num_decoder_layers()];
        let table = table_with_blocks(&parent.config, own.map(|own| self.blocks(own)))?;
        let grouped = parent.config.rms_norm_groups.len() > 1;
        let normalisation = if grouped { Normalisation::Property } else { Normalisation::Rule };
        let mut plan =
            direct_sum(&[parent.part(&table)], &DirectSum { normalisation, ..DirectSum::default() })?;
        for param in &mut plan.params {
            let gradient = self.gradient(&param.name, own);
            param.placements.iter_mut().for_each(|place| place.gradient = gradient);
        }
        Grown::new(plan, child)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_blocks() {
        let order = |arrangement, new_blocks| {
            let blocks = Stack { times: 2, arrangement, new_blocks }.blocks(3).into_iter();
            let text = blocks.map(|block| match block {
                Block::Own(own) => own.to_string(),
                Block::Silent(own) => format!("({own})"),
                Block::Absent => "-".into(),
            });
            text.collect::<String>()
        };
        assert_eq!(order(Arrangement::Repeat, NewBlocks::Active), "012012");
        assert_eq!(order(Arrangement::Interleave, NewBlocks::Active), "001122");
        assert_eq!(order(Arrangement::Repeat, NewBlocks::Silent), "012(0)(1)(2)");
        assert_eq!(order(Arrangement::Interleave, NewBlocks::Silent), "0(0)1(1)2(2)");
    }
}
