%% SPDX-License-Identifier: Apache-2.0
%% What takes too long for every run of the tests, see scripts/soak.sh.
-module(tokamak_soak).

-export([main/1]).

-define(GIB, 10).
-define(ITEM, (1 bsl 20)).
-define(MIB_MORE, 100).
-define(MINUTE, 60_000).

%% @doc So many minutes of abuse, then 10 GiB; the VM ends with an error when one of them fails.
main([Minutes]) ->
    Milliseconds = list_to_integer(Minutes) * ?MINUTE,
    succeeds(fun() -> abuse(Milliseconds) end),
    succeeds(fun large_stream/0).

succeeds(Part) ->
    case Part() of
        true -> ok;
        false -> halt(1)
    end.

abuse(Milliseconds) ->
    Result = tokamak_soak_abuse:run(Milliseconds),
    tokamak_soak_table:print(Result),
    maps:with([grown, failures], Result) =:= #{grown => [], failures => []}.

%% 10 GiB through a window of 16 items, in flat memory.
large_stream() ->
    {ok, _} = application:ensure_all_started(tokamak),
    Before = call_fixture:resident_mib(),
    Count = ?GIB * 1024 * 1024 * 1024 div ?ITEM,
    {Microseconds, {ok, {Count, Most}}} = timer:tc(fun() -> stream(Count) end),
    io:format("streamed ~b GiB in ~.1f s; memory ~b MiB before, ~b MiB at most~n", [
        ?GIB, Microseconds / 1.0e6, Before, Most
    ]),
    Most - Before < ?MIB_MORE.

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
