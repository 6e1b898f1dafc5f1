
command -v apt-get >/dev/null || fail "the parent has no apt-get, by which packages could be added"
mkdir -p "$place/partial"
apt() {
    # shellcheck disable=SC2086
    apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none \
        -o Dir::Cache::Archives="$place/" $sources "$@" </dev/null
}
apt update || fail "apt-get update failed: the parent's own package sources are used, or those of amiforge.apt.mirror"

# Names came and went between releases: of each entry the first that the sources have.
install=
for entry in $wanted; do
    found=
    for name in ${entry//|/ }; do
        # shellcheck disable=SC2086
        if apt-cache $sources show "$name" >/dev/null 2>&1; then
            found=$name
            break
        fi
    done
    [ -n "$found" ] || fail "the package sources of the parent have no package ${entry//|/ or }"
    install="$install $found"
done

# What apt would fetch, and from where: 'URI' name size digest.
# shellcheck disable=SC2086
apt install --no-install-recommends --print-uris $install >"$place/said" ||
    fail "the package sources of the parent do not have all that the packages for a boot need"
grep "^'" "$place/said" >"$place/list" || true
# shellcheck disable=SC2086
apt install --no-install-recommends --download-only $install || fail "fetching the packages for a boot failed"
# Those of a folder are not fetched: apt takes them from where they are.
while read -r uri name _; do
    uri=${uri#\'} uri=${uri%\'}
    case $uri in
        file:*)
            from=${uri#file:} from=/${from##//}
            cp "$(printf %b "${from//%/\\x}")" "$place/$name"
            ;;
    esac
done <"$place/list"
