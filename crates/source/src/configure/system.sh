
# systemd-networkd brings up Ethernet by DHCP where nothing else configures it; what cloud-init writes
# has a lower number and goes first.
if [ -e /usr/lib/systemd/systemd-networkd ] && [ -z "$(find /etc/network/interfaces.d /etc/netplan -mindepth 1 2>/dev/null)" ]; then
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

# The locales that cloud-init would choose are not generated here, and on Debian 12 making them at the
# first boot fails: the system would come up degraded. User data may still name one. A string, since
# the schema of Debian 12 knows no other type here and warns at every boot.
if [ -d /etc/cloud/cloud.cfg.d ]; then
    echo "locale: 'false'" >/etc/cloud/cloud.cfg.d/90-locale.cfg
fi
