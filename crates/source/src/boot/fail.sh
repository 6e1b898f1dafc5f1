
fail() {
    echo "amiforge: $*" >&2
    exit 1
}
