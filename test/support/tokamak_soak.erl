%% SPDX-License-Identifier: Apache-2.0
%% What takes too long for every run of the tests, see scripts/soak.sh.
-module(tokamak_soak).

-export([main/0]).

-define(GIB, 10).
-define(ITEM, (1 bsl 20)).
-define(MIB_MORE, 100).

%% @doc 10 GiB through a window of 16 items, in flat memory.
main() ->
    {ok, _} = application:ensure_all_started(tokamak),
    Before = call_fixture:resident_mib(),
    Count = ?GIB * 1024 * 1024 * 1024 div ?ITEM,
    {Microseconds, {ok, {Count, Most}}} = timer:tc(fun() -> stream(Count) end),
    io:format("streamed ~b GiB in ~.1f s; memory ~b MiB before, ~b MiB at most~n", [
        ?GIB, Microseconds / 1.0e6, Before, Most
    ]),
    case Most - Before < ?MIB_MORE of
        true -> ok;
        false -> halt(1)
    end.

stream(Count) ->
    Stream = tokamak:stream(call_fixture:op(binaries), [Count, ?ITEM], #{window => 16}),
    tokamak:fold(fun count/2, {0, 0}, Stream).

count(Item, {Count, Most}) when byte_size(Item) =:= ?ITEM ->
    case Count rem 64 of
        0 ->
            erlang:garbage_collect(),
            {Count + 1, max(Most, call_fixture:resident_mib())};
        _ ->
            {Count + 1, Most}
    end.
