
# systemd-networkd brings up Ethernet by DHCP where nothing else configures it; what cloud-init writes
# has a lower number and goes first.
if [ -e /usr/lib/systemd/systemd-networkd ] && [ -z "$(ls /etc/network/interfaces.d /etc/netplan 2>/dev/null)" ]; then
    mkdir -p /etc/systemd/network
    cat >/etc/systemd/network/90-dhcp.network <<'END'
[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes

[DHCPv4]
UseDomains=yes
END
    systemctl enable systemd-networkd.service >/dev/null 2>&1 || fail "systemd-networkd cannot be enabled"
fi

# Without the package locales there is nothing that cloud-init's locale module could set: it fails,
# and the system comes up degraded.
if [ -d /etc/cloud/cloud.cfg.d ] && [ ! -e /usr/sbin/locale-gen ]; then
    echo 'locale: false' >/etc/cloud/cloud.cfg.d/90-locale.cfg
fi
