//! Which processors this process may use, and pinning a shard's thread to one.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Numbers of the processors that this thread may run on (its affinity mask), in rising order.
pub fn available_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Pins the calling thread to one processor.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        let reason = format!("processor {cpu} is above the highest number the kernel interface has room for");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_within_the_affinity_mask() {
        std::thread::spawn(|| {
            let cpus = available_cpus().unwrap();
            let last = *cpus.last().unwrap();
            pin_to_cpu(last).unwrap();
            assert_eq!(available_cpus().unwrap(), [last]);
            assert_eq!(
                pin_to_cpu(usize::MAX).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        })
        .join()
        .unwrap();
    }
}
