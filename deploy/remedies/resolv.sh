# The cache first; search list and options stay. Written once, though several containers may share the file.
read -r first </etc/resolv.conf
rest=$(while read -r line || [ -n "$line" ]; do case $line in nameserver*) ;; *) echo "$line" ;; esac; done </etc/resolv.conf)
[ "$first" = "nameserver 127.0.0.1" ] || printf '%s\n' @{resolv_lines} "$rest" >/etc/resolv.conf ||
  echo "cannot write resolv.conf: this container goes past the cache" >&2
