%% SPDX-License-Identifier: Apache-2.0
%% @doc Where the processor time goes: the side of tokamak alone, over and over, while `perf' samples this
%% VM. `make profile', or `make profile PROFILE="events timers"'; see scripts/profile.sh.
-module(bench_profile).

-export([main/0, names/0]).

-define(SECONDS, "3").
-define(EVENTS, 1000000).
-define(CALLS, 100000).
-define(TIMERS, 200000).
-define(CHUNK, 1048576).
-define(CHUNKS, 256).

%% @doc Prints what can be profiled.
-spec names() -> ok.
names() ->
    io:format("~s~n", [lists:join(" ", [atom_to_list(Name) || {Name, _} <- subjects()])]).

%% @doc Profiles the first argument into the file that is the second.
-spec main() -> ok.
main() ->
    [Name, File] = init:get_plain_arguments(),
    {ok, _} = application:ensure_all_started(tokamak),
    [Prepare] = [Prepare || {Known, Prepare} <- subjects(), atom_to_list(Known) =:= Name],
    Self = self(),
    {Pid, Monitor} = spawn_opt(
        fun() -> run(Self, Prepare()) end, [monitor, {message_queue_data, off_heap}]
    ),
    %% Everything that is made once has been made.
    receive
        {Pid, ran_once} -> ok;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end,
    ok = record(File),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end.

run(Parent, Subject) ->
    _ = Subject(),
    Parent ! {self(), ran_once},
    run_on(Subject).

run_on(Subject) ->
    _ = Subject(),
    receive
        stop -> ok
    after 0 -> run_on(Subject)
    end.

record(File) ->
    Arguments = [
        "record", "--quiet", "--event", "cpu-clock", "--freq", "2000", "--pid", os:getpid(),
        "--output", File, "--", "sleep", ?SECONDS
    ],
    Perf = open_port({spawn_executable, os:find_executable("perf")}, [{args, Arguments}, exit_status]),
    receive {Perf, {exit_status, 0}} -> ok end.

%% Each makes what it needs and gives what is run again and again.
subjects() ->
    [
        {events, fun events/0},
        {eager, fun() -> fun() -> [{ok, 42} = tokamak:call(echo, [42]) || _ <- lists:seq(1, ?CALLS)] end end},
        {waiting, fun() -> fun() -> {ok, 0} = tokamak:call({tokamak_test_engine, yields}, [0]) end end},
        {gather, fun gather/0},
        {timers, fun timers/0},
        {pool, fun pool/0},
        {progress, fun() -> fun() -> [ok = tokamak_progress:report(key, N, ?CALLS + 1) || N <- lists:seq(1, ?CALLS)] end end},
        {spawn, fun() -> fun() -> {ok, #{status := 0}} = tokamak_subprocess:run(["true"]) end end},
        {cat, fun cat/0}
    ].

events() ->
    {ok, Loop} = tokamak_loop:open(),
    fun() ->
        Producers = tokamak_bench_nif:producers_push(tokamak_nif:table(), Loop, 1, 1, ?EVENTS),
        ok = tokamak_bench_nif:producers_start(Producers),
        take(Loop, ?EVENTS),
        ok = tokamak_bench_nif:producers_join(Producers)
    end.

timers() ->
    {ok, Loop} = tokamak_loop:open(#{max_queue => 1048576}),
    fun() ->
        _ = [tokamak_loop:start_timer(Loop, 5, Id) || Id <- lists:seq(1, ?TIMERS)],
        take(Loop, ?TIMERS)
    end.

take(_Loop, 0) ->
    ok;
take(Loop, Left) ->
    case tokamak_loop:drain(Loop) of
        {empty, []} -> receive {tokamak, Loop, ready} -> take(Loop, Left) end;
        {_, Events} -> take(Loop, Left - length(Events))
    end.

gather() ->
    Calls = [{{tokamak_test_engine, yields}, [0]} || _ <- lists:seq(1, 1000)],
    fun() -> {ok, [0 | _]} = tokamak:gather(Calls) end.

pool() ->
    Count = fun(_Result, Count) -> Count + 1 end,
    fun() -> {ok, 1000000, _} = tokamak_pool:fold({op, {tokamak_test_engine, tree}}, [0], Count, 0, #{}) end.

cat() ->
    Chunk = binary:copy(<<0>>, ?CHUNK),
    fun() ->
        {ok, P} = tokamak_subprocess:start(["cat"]),
        _ = spawn_link(fun() ->
            [ok = tokamak_subprocess:write(P, Chunk, infinity) || _ <- lists:seq(1, ?CHUNKS)],
            ok = tokamak_subprocess:close_stdin(P)
        end),
        read(P)
    end.

read(P) ->
    case tokamak_subprocess:recv(P, infinity) of
        {ok, _} -> read(P);
        {exit, 0} -> ok
    end.
