//! What changes of the engine while it runs: its configuration, and how much memory there is.

use std::time::Instant;

use super::{Engine, shorter};
use crate::limits::Pressure;
use crate::monitor::{Event, Pace};
use crate::reload::EngineSettings;

impl Engine {
    /// Another configuration holds from now on; the watch goes on without a break.
    pub(super) fn reload(&mut self, settings: EngineSettings) {
        let EngineSettings {
            interval,
            rescan,
            cmdline,
            sessions,
            arguments,
            reread_cpu,
            config_sha256,
        } = settings;
        self.parts.interval = interval;
        self.parts.rescan = rescan;
        self.parts.cmdline = cmdline;
        self.parts.attribution.change(cmdline, sessions, arguments);
        if reread_cpu.to_bits() != self.parts.reread_cpu.to_bits() {
            self.parts.reread_cpu = reread_cpu;
            // It goes on where it is.
            self.start_rolling();
        }
        self.parts.facts.agent.config_sha256 = config_sha256;
        self.monitor
            .set_interval(shorter(interval, self.parts.enrolled_interval));
        let rescan = shorter(rescan, Pace::default().rescan);
        self.monitor.set_rescan(rescan, Instant::now());
        // Every statement names the configuration, so the next one is due now.
        self.monitor.event(Instant::now(), Event::Begun);
    }

    /// Gives up what is only kept for speed, and says so where that is not enough.
    pub(super) fn press(&mut self, pressure: Pressure) {
        if let Some(eyes) = &self.eyes {
            if pressure == Pressure::Over {
                eyes.watch.shed();
            }
            if pressure != Pressure::None && pressure != self.pressure {
                eyes.watch.ease();
            }
        }
        if pressure != Pressure::None {
            crate::sys::give_back();
        }
        if pressure == self.pressure {
            return;
        }
        match pressure {
            Pressure::Over => tracing::error!("more memory is used than allowed"),
            Pressure::Ease => {
                tracing::warn!("memory nears its limit; what is only kept for speed is given up")
            }
            Pressure::None => tracing::info!("memory is well below its limit again"),
        }
        let told = [pressure, self.pressure].contains(&Pressure::Over);
        self.pressure = pressure;
        if told && self.begun {
            self.monitor.event(Instant::now(), Event::Changed);
        }
    }
}
