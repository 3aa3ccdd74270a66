//! The built-in scope `host`: what changes on an idle Debian server is left out rule by rule, each with its reason.

use std::sync::LazyLock;

use crate::scope::{Expect, Rule, Scope};

/// A rule of the built-in scope, with why it is there.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// The rule.
    pub rule: Rule,
    /// Why, in one sentence.
    pub reason: &'static str,
}

/// The rules in their order.
pub fn rules() -> &'static [HostRule] {
    static RULES: LazyLock<Vec<HostRule>> = LazyLock::new(|| {
        let rule = |(glob, expect, reason): &(&str, Expect, &'static str)| HostRule {
            rule: Rule {
                r#match: (*glob).to_owned(),
                expect: *expect,
                time: false,
            },
            reason,
        };
        TABLE.iter().map(rule).collect()
    });
    &RULES
}

/// The scope.
pub fn scope() -> Scope {
    match Scope::new(rules().iter().map(|host| host.rule.clone()).collect()) {
        Ok(scope) => scope,
        Err(_) => unreachable!("the built-in rules are compiled in a test"),
    }
}

const TABLE: &[(&str, Expect, &str)] = &[
    (
        "proc/**",
        Expect::Ignored,
        "The kernel's view of processes is made anew at every look.",
    ),
    (
        "sys/**",
        Expect::Ignored,
        "The kernel's view of devices is made anew at every look.",
    ),
    (
        "dev/**",
        Expect::Ignored,
        "Device nodes come and go with the devices.",
    ),
    (
        "run/**",
        Expect::Ignored,
        "What programs keep while they run is gone at the next boot.",
    ),
    (
        "tmp/**",
        Expect::Ignored,
        "Everybody's short-lived files; the directory itself stays sealed.",
    ),
    (
        "var/tmp/**",
        Expect::Ignored,
        "Everybody's longer-lived scratch files; the directory itself stays sealed.",
    ),
    (
        "lost+found",
        Expect::Ignored,
        "Making a file system makes it, and a check of it puts here what it found.",
    ),
    (
        "var/lib/systemd/linger",
        Expect::Local,
        "The login service makes it at its first start.",
    ),
    (
        "var/lib/systemd/linger/**",
        Expect::Sealed,
        "Whom it names in there has programs that run without a login.",
    ),
    (
        "{swapfile,swap.img}",
        Expect::Ignored,
        "Swapped memory is not content.",
    ),
    (
        "boot/grub/grubenv",
        Expect::Ignored,
        "The boot loader counts its starts here.",
    ),
    (
        "etc/{machine-id,hostid,hostname,hosts,mailname}",
        Expect::Local,
        "A machine's own names are given at its first boot.",
    ),
    (
        "etc/resolv.conf",
        Expect::Local,
        "The name servers are those of the network that the machine stands in.",
    ),
    (
        "etc/mtab",
        Expect::Local,
        "A link to the mounts of the kernel, which some images lack until first boot.",
    ),
    (
        "etc/adjtime",
        Expect::Ignored,
        "The drift of the hardware clock is measured again and again.",
    ),
    (
        "etc/pristine",
        Expect::Local,
        "What this product is told is written on each machine; a change of it is told.",
    ),
    (
        "etc/ssh/ssh_host_*",
        Expect::Local,
        "Host keys are made at first boot, one set a machine.",
    ),
    (
        "etc/ssl/private/ssl-cert-snakeoil.key",
        Expect::Local,
        "The self-signed certificate's key is made when the machine is.",
    ),
    (
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
        Expect::Local,
        "The self-signed certificate is made when the machine is.",
    ),
    (
        "etc/iscsi/initiatorname.iscsi",
        Expect::Local,
        "The storage initiator's name is made when the machine is.",
    ),
    (
        "etc/popularity-contest.conf",
        Expect::Local,
        "It holds an identifier of the machine.",
    ),
    (
        "etc/netplan/50-cloud-init.yaml",
        Expect::Local,
        "The provider's network settings are written at first boot.",
    ),
    (
        "etc/network/interfaces.d/50-cloud-init*",
        Expect::Local,
        "The provider's network settings are written at first boot.",
    ),
    (
        "etc/lvm/{archive,backup,cache}",
        Expect::Ignored,
        "Volume tools keep copies of their layout here whenever they run.",
    ),
    (
        "etc/letsencrypt/{archive,csr,keys,live}",
        Expect::Ignored,
        "Certificates are renewed every few weeks; the hooks beside them stay sealed.",
    ),
    (
        "etc/cups/subscriptions.conf*",
        Expect::Ignored,
        "The printing service notes its listeners here every few minutes.",
    ),
    (
        "var/cache/**",
        Expect::Ignored,
        "Caches can be made again from what is sealed.",
    ),
    (
        "var/backups/**",
        Expect::Ignored,
        "A daily job keeps turned-over copies of package and account lists.",
    ),
    (
        "var/crash/**",
        Expect::Ignored,
        "Reports of crashed programs.",
    ),
    ("var/games/**", Expect::Ignored, "High scores."),
    ("var/mail/**", Expect::Ignored, "Mail that was delivered."),
    (
        "var/spool/**",
        Expect::Ignored,
        "Queues of mail, print and delayed work come and go; cron's are sealed again below.",
    ),
    (
        "var/log/**",
        Expect::Ignored,
        "A timer turns logs over, compresses and deletes them, so what was written does not stay; a scope of your own may call `growing` what is only added to.",
    ),
    (
        "var/lib/systemd/{random-seed,timers,timesync,coredump,rfkill,backlight,pstore}",
        Expect::Ignored,
        "Seed, last runs, clock and device state that the service manager saves.",
    ),
    (
        "var/lib/private",
        Expect::Ignored,
        "State of services that run under a passing user.",
    ),
    (
        "var/lib/{dhcp,dhcpcd,dhcpcd5,NetworkManager,connman}",
        Expect::Ignored,
        "Address leases and what the network service last saw.",
    ),
    (
        "var/lib/misc/*.leases",
        Expect::Ignored,
        "Address leases that were given out.",
    ),
    (
        "var/lib/dbus/machine-id",
        Expect::Local,
        "A machine's own name is given at its first boot.",
    ),
    (
        "var/lib/logrotate",
        Expect::Ignored,
        "When each log was last turned over.",
    ),
    (
        "var/lib/apt/{lists,periodic,daily_lock,mirrors}",
        Expect::Ignored,
        "Package lists are fetched, and their stamps set, every day; what is installed is sealed.",
    ),
    (
        "var/lib/dpkg/lock*",
        Expect::Ignored,
        "Locks of the package tool.",
    ),
    (
        "var/lib/dpkg/triggers/Lock",
        Expect::Ignored,
        "A lock of the package tool.",
    ),
    (
        "var/lib/{update-notifier,update-manager,unattended-upgrades,ubuntu-advantage,command-not-found,PackageKit,fwupd}",
        Expect::Ignored,
        "What the update services last looked for.",
    ),
    (
        "var/lib/{mlocate,plocate,man-db,sysstat,usbutils,smartmontools}",
        Expect::Ignored,
        "Indexes and measurements that daily jobs renew.",
    ),
    (
        "var/lib/{chrony,ntp,ntpsec,hwclock,urandom}",
        Expect::Ignored,
        "The clock's drift and the random seed.",
    ),
    (
        "var/lib/{upower,udisks2,colord,bluetooth,alsa,AccountsService}",
        Expect::Ignored,
        "Device state that desktop services save.",
    ),
    (
        "var/lib/{lastlog,wtmpdb}",
        Expect::Ignored,
        "Databases of logins, rewritten in place.",
    ),
    (
        "var/lib/sudo/{lectured,ts}",
        Expect::Ignored,
        "Who has been told the rules of sudo, and when.",
    ),
    (
        "var/lib/cloud/{data,instance,instances,sem}",
        Expect::Ignored,
        "The provider's data of this boot; its scripts stay sealed.",
    ),
    (
        "var/lib/{fail2ban,nfs,rpcbind,samba}",
        Expect::Ignored,
        "State that network services keep of their peers.",
    ),
    (
        "var/lib/{nginx,php}",
        Expect::Ignored,
        "Bodies and sessions of requests that are under way.",
    ),
    (
        "var/lib/{postgresql,mysql,mariadb,redis,mongodb,etcd,influxdb,elasticsearch,rabbitmq}",
        Expect::Ignored,
        "The data of a database is not the image's.",
    ),
    (
        "var/lib/{prometheus,grafana}",
        Expect::Ignored,
        "Measurements that were collected.",
    ),
    (
        "var/lib/{docker,containerd,containers,lxc,lxd,libvirt,machines,kubelet}",
        Expect::Ignored,
        "Containers and virtual machines are images of their own.",
    ),
    (
        "var/lib/pristine",
        Expect::Ignored,
        "This product's own state: spool, index and store check themselves.",
    ),
    (
        "var/lib/pristine/agent/node.key",
        Expect::Local,
        "The key that a node joined with is its own, and another one is another node.",
    ),
    (
        "home/**",
        Expect::Ignored,
        "People's own files; where programs start from is sealed again below.",
    ),
    (
        "root/{.cache,.cargo,.rustup,.npm,.nv,.dbus}",
        Expect::Ignored,
        "Caches and tool chains that root's tools keep; what they start from is sealed again below.",
    ),
    (
        "root/.local/{share,state}",
        Expect::Ignored,
        "What root's programs remember; user units are sealed again below.",
    ),
    (
        "root/.{bash_history,zsh_history,python_history,sqlite_history,psql_history,mysql_history,rediscli_history,node_repl_history,lesshst,viminfo,wget-hsts,zcompdump*}",
        Expect::Ignored,
        "Histories are rewritten and shortened whenever a program ends.",
    ),
    (
        "root/.{Xauthority,ICEauthority,xsession-errors*}",
        Expect::Ignored,
        "A desktop session writes them when it begins.",
    ),
    (
        "root/.ssh/known_hosts*",
        Expect::Ignored,
        "Hosts that root has connected to; keys and settings beside it stay sealed.",
    ),
    (
        "root/.cargo/{bin,config,config.toml,env}",
        Expect::Sealed,
        "Root's shell and builds run these.",
    ),
    (
        "root/.local/share/systemd",
        Expect::Sealed,
        "Units here start with root's session.",
    ),
    (
        "home/*/.ssh",
        Expect::Sealed,
        "Keys that open an account are where an intruder stays.",
    ),
    (
        "home/*/.ssh/known_hosts*",
        Expect::Ignored,
        "Hosts that somebody has connected to.",
    ),
    (
        "home/*/.{bashrc,bash_aliases,bash_login,bash_logout,bash_profile,profile,zshrc,zshenv,zprofile,zlogin,zlogout,kshrc,cshrc,tcshrc,login,inputrc}",
        Expect::Sealed,
        "A shell runs these at every start.",
    ),
    (
        "home/*/.{pam_environment,xinitrc,xprofile,xsession,xsessionrc,forward,rhosts,shosts}",
        Expect::Sealed,
        "A login or a mail runs or believes these.",
    ),
    (
        "home/*/.config/{autostart,environment.d,fish,plasma-workspace,systemd}",
        Expect::Sealed,
        "A session starts what stands here.",
    ),
    (
        "home/*/.local/share/systemd",
        Expect::Sealed,
        "Units here start with the session.",
    ),
    (
        "var/spool/cron",
        Expect::Sealed,
        "Jobs of cron and at run what stands here.",
    ),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn all(expect: Expect, paths: &[&str]) {
        let scope = scope();
        for path in paths {
            assert_eq!(
                scope.decide(&path.parse().unwrap()).expect,
                expect,
                "{path}"
            );
        }
    }

    #[test]
    fn every_rule_has_its_own_reason_to_be_there() {
        for host in rules() {
            assert!(host.reason.ends_with('.'), "{}", host.rule.r#match);
            let same = rules()
                .iter()
                .filter(|other| other.rule.r#match == host.rule.r#match);
            assert_eq!(same.count(), 1, "{}", host.rule.r#match);
        }
        assert_eq!(scope().rules().len(), rules().len());
    }

    #[test]
    fn where_persistence_hides_stays_sealed() {
        all(
            Expect::Sealed,
            &[
                ".",
                "./tmp",
                "./proc",
                "./run",
                "./home",
                "./root",
                "./root/.ssh",
                "./root/.ssh/authorized_keys",
                "./root/.ssh/config",
                "./root/.bashrc",
                "./root/.bash_profile",
                "./root/.profile",
                "./root/.cargo/env",
                "./root/.cargo/bin/cargo",
                "./root/.config/systemd/user/x.service",
                "./root/.local/bin/x",
                "./root/.local/share/systemd/user/x.service",
                "./etc/crontab",
                "./etc/cron.d/x",
                "./etc/cron.daily/x",
                "./etc/anacrontab",
                "./etc/systemd/system/x.service",
                "./etc/systemd/system/ssh.service.d/x.conf",
                "./usr/lib/systemd/system/x.service",
                "./etc/init.d/x",
                "./etc/rc.local",
                "./etc/pam.d/x",
                "./etc/sudoers",
                "./etc/sudoers.d/x",
                "./etc/profile.d/x.sh",
                "./etc/ld.so.preload",
                "./etc/ld.so.conf.d/x.conf",
                "./etc/passwd",
                "./etc/shadow",
                "./etc/ssh/sshd_config",
                "./etc/ssh/sshd_config.d/x.conf",
                "./etc/udev/rules.d/x.rules",
                "./etc/modprobe.d/x.conf",
                "./etc/letsencrypt/renewal-hooks/deploy/x",
                "./etc/network/if-up.d/x",
                "./etc/apt/apt.conf.d/x",
                "./usr/lib/python3/dist-packages/__pycache__/x.pyc",
                "./usr/local/bin/x",
                "./var/lib/dpkg/status",
                "./var/lib/dpkg/info/x.postinst",
                "./var/lib/systemd/linger/x",
                "./var/lib/cloud/scripts/per-boot/x",
                "./var/spool/cron/crontabs/root",
                "./var/spool/cron/atjobs/x",
                "./home/x/.ssh/authorized_keys",
                "./home/x/.bashrc",
                "./home/x/.profile",
                "./home/x/.zshenv",
                "./home/x/.config/autostart/x.desktop",
                "./home/x/.config/systemd/user/x.service",
                "./boot/vmlinuz",
                "./boot/grub/grub.cfg",
            ],
        );
    }

    #[test]
    fn what_an_idle_server_changes_is_left_out() {
        all(
            Expect::Ignored,
            &[
                "./proc/1/stat",
                "./dev/shm/x",
                "./run/utmp",
                "./tmp/x/y",
                "./var/tmp/x",
                "./var/cache/apt/pkgcache.bin",
                "./var/log/journal/x/system.journal",
                "./var/log/syslog.1",
                "./var/log/dpkg.log.2.gz",
                "./var/log/lastlog",
                "./var/log/apt/eipp.log.xz",
                "./var/log/apt/history.log",
                "./var/log/syslog",
                "./var/log/wtmp",
                "./var/lib/systemd/timers/stamp-x.timer",
                "./var/lib/systemd/random-seed",
                "./var/lib/dhcp/dhclient.leases",
                "./var/lib/apt/lists/x",
                "./var/lib/apt/periodic/update-stamp",
                "./var/lib/logrotate/status",
                "./var/lib/private/systemd/timesync/clock",
                "./var/lib/dpkg/lock-frontend",
                "./var/lib/docker/overlay2/x",
                "./var/spool/anacron/cron.daily",
                "./var/spool/postfix/active/x",
                "./root/.cache/x",
                "./root/.bash_history",
                "./root/.local/share/x",
                "./root/.ssh/known_hosts",
                "./home/x/work/a",
                "./home/x/.ssh/known_hosts.old",
                "./swapfile",
            ],
        );
        all(
            Expect::Local,
            &[
                "./etc/machine-id",
                "./etc/hostname",
                "./etc/resolv.conf",
                "./etc/ssh/ssh_host_rsa_key",
                "./etc/pristine/agent.toml",
            ],
        );
    }

    #[test]
    fn a_walk_leaves_out_what_is_ignored_whole() {
        let scope = scope();
        let enter = |path: &str| {
            let path: crate::path::ImagePath = path.parse().unwrap();
            !path
                .components()
                .fold(scope.start(), |state, name| state.child(name))
                .ignores_all_below()
        };
        for path in [
            "./proc/1",
            "./var/cache/apt",
            "./var/lib/docker",
            "./root/.cache",
            "./home/x/src",
            "./tmp/x",
        ] {
            assert!(!enter(path), "{path}");
        }
        for path in [
            "./home/x",
            "./home/x/.config",
            "./var/spool",
            "./etc",
            "./root/.cargo",
        ] {
            assert!(enter(path), "{path}");
        }
    }
}
