
# Identities: each instance makes its own at its first boot.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
if [ -e /usr/lib/systemd/systemd ] || [ -e /etc/machine-id ]; then
    : >/etc/machine-id
fi
rm -f /var/lib/dbus/machine-id
if [ -d /var/lib/dbus ]; then
    ln -s /etc/machine-id /var/lib/dbus/machine-id
fi
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed /boot/efi/loader/random-seed
rm -rf /var/lib/dhcp/*.leases /var/lib/dhcpcd/* /var/lib/cloud/* /var/lib/NetworkManager/*.lease

# Network identity of the machine that built the image.
echo localhost >/etc/hostname
cat >/etc/hosts <<'END'
127.0.0.1	localhost
::1		localhost ip6-localhost ip6-loopback
ff02::1		ip6-allnodes
ff02::2		ip6-allrouters
END
if [ -e /usr/lib/systemd/systemd-resolved ]; then
    rm -f /etc/resolv.conf
    ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
elif [ ! -L /etc/resolv.conf ]; then
    rm -f /etc/resolv.conf
fi

# Passwords change "today": the day of the build clock, which the tools take from SOURCE_DATE_EPOCH
# only in newer releases.
if [ -e /etc/shadow ]; then
    day=$((SOURCE_DATE_EPOCH / 86400))
    sed -i "s/^\([^:]*:[^:]*\):[0-9]*:/\1:$day:/" /etc/shadow
fi
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock

# Caches, logs, backups, locks.
find /var/log -type f -exec truncate --size=0 {} +
rm -f /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log /var/log/btmp.* /var/log/*.gz /var/log/*.1
rm -rf /var/log/apt/* /var/log/journal/*
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial
rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*
if id _apt >/dev/null 2>&1; then
    chown _apt:root /var/lib/apt/lists/partial /var/cache/apt/archives/partial
    chmod 700 /var/lib/apt/lists/partial /var/cache/apt/archives/partial
fi
rm -f /var/lib/dpkg/*-old /var/lib/dpkg/available /var/cache/debconf/*-old /var/lib/dpkg/lock* /var/lib/dpkg/triggers/Lock
rm -f /var/cache/ldconfig/aux-cache /var/lib/apt/extended_states.bak
find /var/lib/dpkg/updates -type f -delete 2>/dev/null || true
rm -f /root/.bash_history /root/.lesshst /root/.viminfo /root/.wget-hsts
rm -rf /root/.cache /tmp/* /tmp/.[!.]* /var/tmp/* /var/tmp/.[!.]*
rm -rf /var/cache/fontconfig/* /var/cache/man/*

# Bytecode that a script compiled beside its own new files; that of packages goes by the times the
# packages carry.
find /usr/local /root /home -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
