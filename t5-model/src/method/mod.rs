//! The methods that make a larger model out of smaller ones, one file each. All of them end in a
//! [`FusionPlan`](fusion_core::plan::FusionPlan).

mod depth;
mod fuse;
mod hyperclone;
mod lemon;
mod net2net;
mod promise;
mod refusal;
mod self_fusion;
mod stack;

use fusion_core::grow::Part;
use fusion_core::plan::FusionPlan;
use fusion_core::table::ParamTable;
use serde::{Deserialize, Serialize};

pub use depth::DepthAlignment;
pub use fuse::{FusionParent, child_config, fusion_plan};
pub use hyperclone::{HyperClone, hyperclone};
pub use lemon::{Lemon, lemon};
pub use net2net::{Net2Net, net2net};
pub use promise::Promise;
pub use refusal::Refusal;
pub use self_fusion::self_fusion;
pub use stack::{Arrangement, NewBlocks, Stack, stack};

use crate::{Error, Result, T5Config};

/// What a method makes of its parents: the plan, and the child's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    pub plan: FusionPlan,
    pub child: T5Config,
}

impl Grown {
    /// The child with a plan's groups of the normalisation.
    fn new(plan: FusionPlan, mut child: T5Config) -> Result<Self> {
        let grouped = plan.embed_groups.len() > 1;
        child.rms_norm_groups = if grouped { plan.embed_groups.clone() } else { Vec::new() };
        child.validate()?;
        Ok(Grown { plan, child })
    }
}

/// The methods, by the names that commands and plans give them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[default]
    Fuse,
    #[serde(rename = "self")]
    SelfFusion,
    HyperClone,
    Net2Net,
    Lemon,
    Stack,
}

impl Method {
    pub const ALL: [Method; 6] =
        [Method::Fuse, Method::SelfFusion, Method::HyperClone, Method::Net2Net, Method::Lemon, Method::Stack];

    pub fn name(self) -> &'static str {
        match self {
            Method::Fuse => "fuse",
            Method::SelfFusion => "self",
            Method::HyperClone => "hyperclone",
            Method::Net2Net => "net2net",
            Method::Lemon => "lemon",
            Method::Stack => "stack",
        }
    }

    /// The method of that name.
    pub fn named(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }

    /// What its authors call it, and where they describe it.
    pub fn paper(self) -> (&'static str, &'static str) {
        match self {
            Method::Fuse | Method::SelfFusion => ("Deep Fusion", "https://arxiv.org/abs/2306.11903"),
            Method::HyperClone => ("HyperCloning", "https://arxiv.org/abs/2409.12903"),
            Method::Net2Net => ("Net2Net", "https://arxiv.org/abs/1511.05641"),
            Method::Lemon => ("LEMON", "https://arxiv.org/abs/2310.07999"),
            Method::Stack => ("progressive stacking", "https://proceedings.mlr.press/v97/gong19a.html"),
        }
    }
}

/// Sizes to grow to; a parent's own where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Widths {
    /// A multiple of the parent's.
    pub d_model: Option<usize>,
    pub num_heads: Option<usize>,
    pub d_ff: Option<usize>,
}

impl Widths {
    /// The sizes of d_model, num_heads and d_ff, with the parent's before them.
    fn resolve(self, method: Method, parent: &FusionParent) -> Result<[(usize, usize); 3]> {
        let config = &parent.config;
        let sizes = [
            ("d_model", config.d_model, self.d_model),
            ("num_heads", config.num_heads, self.num_heads),
            ("d_ff", config.d_ff, self.d_ff),
        ];
        let name = method.name();
        for (key, own, wanted) in sizes {
            if let Some(wanted) = wanted.filter(|wanted| *wanted < own) {
                let label = &parent.label;
                let problem =
                    format!("{name} only adds features: {key} is {own} in {label}, more than {wanted}");
                return Err(Error::Fusion(problem));
            }
        }
        let sizes = sizes.map(|(_, own, wanted)| (own, wanted.unwrap_or(own)));
        if sizes.iter().all(|(own, wanted)| own == wanted) {
            let problem = format!(
                "{name} would leave {} as it is: give it a larger d_model, num_heads or d_ff",
                parent.label
            );
            return Err(Error::Fusion(problem));
        }
        Ok(sizes)
    }
}

/// A parent of a method that grows one model.
fn part<'a>(parent: &'a FusionParent, table: &'a ParamTable) -> Part<'a> {
    Part {
        label: &parent.label,
        blake3: parent.blake3.as_deref(),
        table,
        embed_groups: &parent.config.rms_norm_groups,
    }
}
