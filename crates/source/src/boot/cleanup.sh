
# Identities: each instance makes its own at its first boot.
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
if [ -d /var/lib/dbus ]; then
    ln -s /etc/machine-id /var/lib/dbus/machine-id
fi
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
if [ -e /usr/lib/systemd/systemd-resolved ]; then
    rm -f /etc/resolv.conf
    ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
fi

# Passwords of the accounts that packages made change "today", which is the day of the build clock.
if [ -e /etc/shadow ]; then
    today=$(date +%s)
    today=$((today / 86400))
    day=$((SOURCE_DATE_EPOCH / 86400))
    sed -i "s/^\([^:]*:[!*][^:]*\):$today:/\1:$day:/" /etc/shadow
fi
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock

# What apt and dpkg leave.
rm -rf /var/lib/apt/lists/* /var/log/apt/* /var/cache/apt/*.bin
rm -f /var/log/dpkg.log /var/log/alternatives.log /var/cache/apt/archives/*.deb /var/cache/ldconfig/aux-cache
rm -f /var/lib/dpkg/*-old /var/lib/dpkg/available /var/cache/debconf/*-old /var/lib/dpkg/lock*
rm -rf /tmp/* /var/tmp/*
