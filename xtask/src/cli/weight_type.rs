//! The values of `--dtype`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use fusion_core::checkpoint::WeightType;

pub fn weight_type() -> impl TypedValueParser<Value = WeightType> {
    let named = |name: String| WeightType::ALL.into_iter().find(|dtype| dtype.name() == name);
    let parser = PossibleValuesParser::new(WeightType::ALL.map(WeightType::name));
    parser.try_map(move |name| named(name).ok_or("no type of weights"))
}
