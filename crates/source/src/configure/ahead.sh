
# Bytecode depends on nothing that a script configures, and one processor is idle until the initrd is begun: what the
# packages will ask for is compiled aside, by whatever is idle. Not while dpkg has yet to unpack some: these may exclude files.
ahead=
if [ -x /usr/bin/py3compile ] && [ -z "$(find "$root/var/cache/apt/archives" -maxdepth 1 -name '*.deb' 2>/dev/null)" ]; then
    # shellcheck disable=SC2086,SC2154
    PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=$later/bytecode nice -n 10 \
        python3 "$later/py3compile.py" ahead "$later" /var/lib/dpkg "$native" $order >"$later/ahead.log" 2>&1 </dev/null &
    ahead=$!
fi
