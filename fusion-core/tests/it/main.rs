mod atomic;
mod checkpoint;
mod dense;
mod direct_sum;
mod execute;
mod lineage;
mod plan;
mod support;
