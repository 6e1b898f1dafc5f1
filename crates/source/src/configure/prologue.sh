set -eu
umask 022
cd /
# Nothing of the host: what a script can see of it would end up in the image.
for name in $(compgen -e); do
    case $name in
        SOURCE_DATE_EPOCH) ;;
        *) unset "$name" 2>/dev/null || true ;;
    esac
done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C LANG=C TZ=UTC TERM=dumb SHELL=/bin/sh
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
export PYTHONHASHSEED=0 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
export SYSTEMD_OFFLINE=1
# Where the packages are, and how dpkg is told: a test of a part of this script sets them.
root='' dpkg_options=''
