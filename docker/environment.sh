#!/usr/bin/env bash
# How the entrypoints turn the environment into flags. They source it; by itself it does nothing.
#
# An empty variable counts as none. What can not be right is collected, told all at once, and starts nothing.

flags=()
mistakes=()

# What a value of each kind is, for people, and the pattern that it must fit. A few kinds are looked at more closely
# by `fits`; what passes here and is wrong all the same is told by the program itself.
declare -rA TAKES=(
    [address]='an address and a port, like 127.0.0.1:9433'
    [claim]='bytes in hexadecimal, two digits each, 7 KiB at most'
    [domain]='a host name, like tunnel.example.com'
    [email]='an e-mail address'
    [file]='the path of a file that can be read'
    [fingerprint]='sha256// and 44 characters, as the relay prints it behind KEY:'
    [id or file]='the id of an agent (26 characters), or the path of a file with an id a line'
    [local]='a port, host:port, http://host, https://host or unix:path'
    [path]='the path of a file'
    [pool]='a number from 1 to 8'
    [port]='a port, 1 to 65535'
    [relay]='host or host:port, an IPv6 address in [brackets]'
    [switch]='1 or 0 (or true, false, yes, no, on, off)'
)
readonly NAME='[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?' V6='\[[0-9A-Fa-f:.]+\]'
declare -rA PATTERN=(
    [address]='^.+:[0-9]+$'
    [claim]='^([0-9A-Fa-f]{2})+$'
    [domain]="^$NAME\$"
    [email]='^[^@[:space:]]+@[^@[:space:]]+$'
    [file]='.'
    [fingerprint]='^sha256//[A-Za-z0-9+/]{43}=$'
    [id or file]='.'
    [local]="^([0-9]+|($NAME|$V6):[0-9]+|https?://($NAME|$V6)(:[0-9]+)?/?|unix:.+)\$"
    [path]='.'
    [pool]='^[1-8]$'
    [port]='^[0-9]{1,5}$'
    [relay]="^($NAME|$V6)(:[0-9]+)?\$"
    [switch]='^(1|0|[Tt]rue|[Ff]alse|TRUE|FALSE|[Yy]es|[Nn]o|YES|NO|[Oo]n|[Oo]ff|ON|OFF)$'
)
readonly ID='^[a-z2-7]{26}$' MAX_CLAIM_DIGITS=$((2 * 7 * 1024))

# Whether a variable says anything.
given() {
    [[ -n ${!1-} ]]
}

# The path itself, or in the data folder, as the programs look for it.
readable() {
    local path
    for path in "$1" "${STATE_DIRECTORY:-.}/$1"; do
        [[ -f $path && -r $path ]] && return
    done
    return 1
}

# fits KIND VALUE
fits() {
    [[ $2 =~ ${PATTERN[$1]} ]] || return 1
    case $1 in
    # A folder is what a mount makes of a file that is not there.
    path) [[ ! -d $2 ]] ;;
    file) readable "$2" ;;
    'id or file') [[ $2 =~ $ID ]] || readable "$2" ;;
    claim) ((${#2} <= MAX_CLAIM_DIGITS)) ;;
    address | local | port | relay)
        # The last number, where there is one behind a colon or nothing else.
        [[ ! $2 =~ (^|:)([0-9]+)/?$ ]] || [[ $2 == unix:* || $2 == \[*\] ]] || is_port "${BASH_REMATCH[2]}"
        ;;
    esac
}

is_port() {
    [[ $1 =~ ^[0-9]{1,5}$ ]] && ((10#$1 >= 1 && 10#$1 <= 65535))
}

# wrong NAME KIND VALUE
wrong() {
    mistakes+=("$1 takes ${TAKES[$2]}, not ${3@Q}")
}

# one FLAG NAME KIND: the flag with the variable's value.
one() {
    local value=${!2-}
    [[ -n $value ]] || return 0
    if fits "$3" "$value"; then
        flags+=("$1" "$value")
    else
        wrong "$2" "$3" "$value"
    fi
}

# each FLAG NAME KIND: the flag once for each value, of which there may be several, by comma.
each() {
    local value values
    given "$2" || return 0
    mapfile -td, values < <(printf '%s,' "${!2}")
    for value in "${values[@]}"; do
        # Without what is blank around it.
        value=${value#"${value%%[![:space:]]*}"}
        value=${value%"${value##*[![:space:]]}"}
        if fits "$3" "$value"; then
            flags+=("$1" "$value")
        else
            wrong "$2, of which there may be several, by comma," "$3" "$value"
        fi
    done
}

# Whether a switch is on.
is_on() {
    [[ ${!1-} =~ ^(1|[Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn])$ ]]
}

# switch FLAG NAME: the flag, if the variable switches it on.
switch() {
    given "$2" || return 0
    if ! fits switch "${!2}"; then
        wrong "$2" switch "${!2}"
    elif is_on "$2"; then
        flags+=("$1")
    fi
}

# unused NAME KIND WITHOUT: a variable that says nothing as long as another is not given.
unused() {
    local value=${!1-}
    [[ -n $value ]] || return 0
    if fits "$2" "$value"; then
        echo "$1 is not used without $3" >&2
    else
        wrong "$1" "$2" "$value"
    fi
}

# pair NAME NAME: one is nothing without the other.
pair() {
    if given "$1" && ! given "$2"; then
        mistakes+=("$1 takes $2 beside it")
    elif given "$2" && ! given "$1"; then
        mistakes+=("$2 takes $1 beside it")
    fi
}

# brought NAME: the flags of a certificate that the user brings, which is not ordered too, as NAME would have it.
brought() {
    one --tls-cert TLS_CERT file
    one --tls-key TLS_KEY file
    pair TLS_CERT TLS_KEY
    if given TLS_CERT && given "$1"; then
        mistakes+=("TLS_CERT takes no $1 beside it: a certificate is brought, or ordered")
    fi
}

# start PROGRAM ARGUMENT…: becomes the program, with the flags and then the arguments, so that signals reach it. Comes
# back only if the system does not start it.
start() {
    if ((${#mistakes[@]} > 0)); then
        printf '%s\n' "${mistakes[@]}" >&2
        exit 2
    fi
    shopt -s execfail
    exec "$1" "${flags[@]}" "${@:2}"
}
