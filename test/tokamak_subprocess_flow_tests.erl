%% SPDX-License-Identifier: Apache-2.0
%% Back-pressure: children that write more than anybody takes, or read less than anybody writes.
-module(tokamak_subprocess_flow_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).

flow_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            {"a child that floods waits for its consumer: memory stays flat, nothing is lost", {timeout, 60, fun flood/0}},
            {"a child that floods one output does not hide the other", fun flood_on_one_side/0},
            {"a child that never reads: write times out, the rest goes on", fun never_reads/0},
            {"a write that waits goes on when the child reads", fun write_waits/0},
            {"a write that waits ends with the child, and with the input", fun write_is_ended/0},
            {"writers that die while they wait are forgotten", {timeout, 60, fun dead_writers/0}},
            {"who moves large pieces gives its turn up as if it had worked", fun charged/0},
            {"many writers wait for one child", fun many_writers/0},
            {"64 MiB go through cat unchanged", {timeout, 60, fun through_cat/0}},
            {"an idle child costs no wake of the VM's native threads", {timeout, 30, fun idle/0}}
        ]}.

flood() ->
    {ok, P} = ?s:start(["sh", "-c", "i=0; while [ $i -lt 200 ]; do head -c 1048576 /dev/zero; i=$((i+1)); done; exit 3"]),
    ok = ?s:active(P, 4),
    Four = [receive {tokamak, P, {stdout, Bin}} -> byte_size(Bin) end || _ <- [1, 2, 3, 4]],
    %% The consumer sleeps while the child wants to write 200 MiB.
    Before = tokamak_wait:resident_kib(),
    receive after 500 -> ok end,
    ?assertEqual([], element(2, process_info(self(), messages))),
    ?assert(tokamak_wait:resident_kib() - Before < 8192),
    ?assertEqual({3, 200 * 1048576}, count(P, lists:sum(Four))),
    erlang:garbage_collect(),
    ?assert(tokamak_wait:resident_kib() - Before < 32768).

count(P, Bytes) ->
    case ?s:recv(P) of
        {ok, {stdout, Bin}} -> count(P, Bytes + byte_size(Bin));
        {exit, Status} -> {Status, Bytes}
    end.

flood_on_one_side() ->
    {ok, P} = ?s:start(["sh", "-c", "yes & echo here >&2; wait"]),
    find_stderr(P, 100),
    ok = ?s:stop(P).

find_stderr(P, Left) when Left > 0 ->
    case ?s:recv(P) of
        {ok, {stderr, Bin}} -> ?assertEqual(<<"here\n">>, Bin);
        {ok, {stdout, _}} -> find_stderr(P, Left - 1)
    end.

never_reads() ->
    {ok, P} = ?s:start(["sh", "-c", "echo ready; sleep 86400"]),
    ?assertEqual({error, timeout}, ?s:write(P, binary:copy(<<"x">>, 4000000), 50)),
    ?assertEqual({error, timeout}, ?s:write(P, "x", 0)),
    ?assertEqual({ok, {stdout, <<"ready\n">>}}, ?s:recv(P)),
    ?assertMatch({ok, #{status := 0}}, ?s:run(["true"])),
    ok = ?s:stop(P),
    ?assertEqual({exit, {signal, 15}}, ?s:recv(P)).

write_waits() ->
    {ok, P} = ?s:start(["sh", "-c", "read line; cat | wc -c"]),
    Data = binary:copy(<<"0123456789">>, 500000),
    Self = self(),
    spawn_link(fun() -> Self ! {written, ?s:write(P, ["\n", Data], infinity), ?s:close_stdin(P)} end),
    receive {written, Written, Closed} -> ?assertEqual({ok, ok}, {Written, Closed}) end,
    {ok, {stdout, Count}} = ?s:recv(P),
    ?assertEqual(<<"5000000">>, string:trim(Count)),
    ?assertEqual({exit, 0}, ?s:recv(P)).

write_is_ended() ->
    Write = fun(P, Self) -> Self ! {written, ?s:write(P, binary:copy(<<"x">>, 4000000), infinity)} end,
    Self = self(),
    {ok, Killed} = ?s:start(["sleep", "86400"]),
    spawn_link(fun() -> Write(Killed, Self) end),
    is_full(Killed),
    ok = ?s:stop(Killed),
    receive {written, Error} -> ?assertEqual({error, epipe}, Error) end,
    ?assertEqual({exit, {signal, 15}}, ?s:recv(Killed)),
    {ok, P} = ?s:start(["sleep", "86400"]),
    spawn_link(fun() -> Write(P, Self) end),
    is_full(P),
    ok = ?s:close_stdin(P),
    receive {written, Closed} -> ?assertEqual({error, closed}, Closed) end,
    ok = ?s:stop(P).

is_full(P) ->
    tokamak_wait:until(fun() -> ?s:write(P, <<"x">>, 0) =:= {error, timeout} end).

dead_writers() ->
    {ok, P} = ?s:start(["sleep", "86400"]),
    ?assertEqual({error, timeout}, ?s:write(P, <<0:4000000/unit:8>>, 50)),
    Die = fun(_) ->
        {Writer, Monitor} = spawn_monitor(fun() -> full = tokamak_nif:subprocess_write(P, [<<"x">>], make_ref()) end),
        receive {'DOWN', Monitor, process, Writer, Reason} -> ?assertEqual(normal, Reason) end
    end,
    lists:foreach(Die, lists:seq(1, 1000)),
    Before = tokamak_wait:resident_kib(),
    lists:foreach(Die, lists:seq(1, 50_000)),
    %% Kept, they are 120 MiB.
    ?assert(tokamak_wait:resident_kib() - Before < 40_000),
    ok = ?s:stop(P).

%% Reductions: those of what is done in Erlang are some ten a call.
charged() ->
    {ok, P} = ?s:start(["cat", "/dev/zero"]),
    tokamak_wait:until(fun() -> reductions_of_large(P) > 40 end),
    {ok, Full} = ?s:start(["sleep", "86400"]),
    {Reductions, _} = reductions(fun() -> tokamak_nif:subprocess_write(Full, [<<0:1000000/unit:8>>], undefined) end),
    ?assert(Reductions > 40),
    [ok = ?s:stop(Child) || Child <- [P, Full]].

reductions_of_large(P) ->
    case reductions(fun() -> tokamak_nif:subprocess_recv(P, undefined) end) of
        {Reductions, {ok, {stdout, Data}}} when byte_size(Data) >= 200_000 -> Reductions;
        _ -> 0
    end.

reductions(Fun) ->
    {reductions, Before} = process_info(self(), reductions),
    Result = Fun(),
    {reductions, After} = process_info(self(), reductions),
    {After - Before, Result}.

many_writers() ->
    {ok, P} = ?s:start(["sh", "-c", "sleep 0.2; wc -c"]),
    Self = self(),
    [
        spawn_link(fun() -> Self ! {written, ?s:write(P, binary:copy(<<"x">>, 100000), infinity)} end)
     || _ <- lists:seq(1, 20)
    ],
    [receive {written, Result} -> ?assertEqual(ok, Result) end || _ <- lists:seq(1, 20)],
    ok = ?s:close_stdin(P),
    {ok, {stdout, Count}} = ?s:recv(P),
    ?assertEqual(<<"2000000">>, string:trim(Count)).

through_cat() ->
    Chunk = crypto:strong_rand_bytes(1048576),
    {ok, P} = ?s:start(["cat"]),
    spawn_link(fun() ->
        [ok = ?s:write(P, Chunk, infinity) || _ <- lists:seq(1, 64)],
        ok = ?s:close_stdin(P)
    end),
    Expected = lists:foldl(fun(_, Hash) -> crypto:hash_update(Hash, Chunk) end, crypto:hash_init(sha256), lists:seq(1, 64)),
    ?assertEqual({0, crypto:hash_final(Expected)}, digest(P, crypto:hash_init(sha256))).

digest(P, Hash) ->
    case ?s:recv(P) of
        {ok, {stdout, Bin}} -> digest(P, crypto:hash_update(Hash, Bin));
        {exit, Status} -> {Status, crypto:hash_final(Hash)}
    end.

idle() ->
    Children = [begin {ok, P} = ?s:start(["cat"]), ok = ?s:active(P, 1), P end || _ <- lists:seq(1, 50)],
    receive after 300 -> ok end,
    Before = switches(),
    receive after 2000 -> ok end,
    ?assert(Before > 0),
    ?assertEqual(Before, switches()),
    [ok = ?s:stop(P) || P <- Children].

%% Context switches of our native threads.
switches() ->
    {ok, Tasks} = file:list_dir("/proc/self/task"),
    lists:sum([
        list_to_integer(Count)
     || Task <- Tasks,
        {ok, Status} <- [file:read_file("/proc/self/task/" ++ Task ++ "/status")],
        binary:match(Status, <<"Name:\ttokamak">>) =/= nomatch,
        {match, [Count]} <- [re:run(Status, "\nvoluntary_ctxt_switches:\\s+([0-9]+)", [{capture, all_but_first, list}])]
    ]).
