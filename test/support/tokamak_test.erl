%% SPDX-License-Identifier: Apache-2.0
%% @doc What the tests share: cases in processes of their own, waiting for conditions, and what the
%% operating system counts for this VM.
-module(tokamak_test).

-export([in_time/2, in_time/1]).
-export([with_application/1, with_program/2, quietly/1, on_backends/1, cases/1, cases/2]).
-export([wait_until/1, wait_until/2, wait_for/2, wait_for/3]).
-export([nothing_comes/1, mailbox/0, mailbox_length/1, settled/1]).
-export([spawn_process/1, ask/2, kill/1, wait_for_end/1, in_process/1]).
-export([pipe/0, new_loop/1, raw_loop/1, collect/2, drain_all/1, results/1]).
-export([open_files/0, file_limit/0, threads/1, switches/1, cpu_ticks/1, own_cpu_ticks/0, rss/0]).
-export([resources/0, given_back/1]).
-export([clock/0, keep_busy/1, with_directory/1, repeat/2, start_peer/0, start_peer/1]).

-define(DEADLINE, 10_000).
-define(CASE_SECONDS, 60).

%% @doc Runs tests while the application runs.
with_application(Tests) ->
    {setup,
        fun() ->
            {ok, Started} = application:ensure_all_started(tokamak),
            Started
        end,
        fun(Started) -> quietly(fun() -> [application:stop(App) || App <- Started] end) end, Tests}.

%% @doc Tests that need a program: skipped with a line where it is not installed, except in CI.
with_program(Program, Tests) ->
    case {os:find_executable(Program), os:getenv("CI")} of
        {false, false} ->
            io:format(user, "skipped: ~s is not installed~n", [Program]),
            [];
        {false, _} ->
            {Program ++ " is installed", fun() -> error({not_installed, Program}) end};
        _ ->
            Tests
    end.

%% @doc Runs a function without reports of applications that stop.
quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, critical),
    try
        Fun()
    after
        logger:set_primary_config(level, Level)
    end.

%% @doc Test cases that hold on both backends: `{Title, fun(Backend)}'.
on_backends(Cases) ->
    [
        cases([{Title ++ suffix(Backend), fun() -> Fun(Backend) end} || {Title, Fun} <- Cases])
     || Backend <- [native, select]
    ].

suffix(Backend) -> " (" ++ atom_to_list(Backend) ++ ")".

%% @doc Test cases, each in a process of its own: with an empty mailbox, and what it owns ends with it.
cases(Cases) ->
    cases(?CASE_SECONDS, Cases).

cases(Seconds, Cases) ->
    [{timeout, Seconds, {Title, fun() -> in_time(fun() -> in_process(Fun) end) end}} || {Title, Fun} <- Cases].

%% @doc Fails a case that took longer than it may. It is run some more times then, see {@link in_time/1}: a busy
%% machine may have had no time for it once; what is slow is slow each time. To be called last in a case.
in_time(Took, Limit) when Took < Limit -> ok;
in_time(Took, Limit) -> erlang:error({took_too_long, Took, {limit, Limit}}).

%% @doc Runs a case that may take too long, up to five times.
in_time(Case) ->
    in_time_once_of(5, Case).

in_time_once_of(1, Case) ->
    Case();
in_time_once_of(Times, Case) ->
    try
        Case()
    catch
        error:{took_too_long, _Took, _Limit} -> in_time_once_of(Times - 1, Case)
    end.

%% @doc Runs a function in a new process; what it returns or raises is the caller's.
in_process(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        exit(
            try
                {returned, Fun()}
            catch
                Class:Reason:Stack -> {raised, Class, Reason, Stack}
            end
        )
    end),
    receive
        {'DOWN', Monitor, process, Pid, {returned, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, {raised, Class, Reason, Stack}} ->
            erlang:raise(Class, Reason, Stack);
        {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    end.

%% @doc Waits until a function returns true.
wait_until(Fun) ->
    wait_until(Fun, ?DEADLINE).

wait_until(Fun, Milliseconds) ->
    wait_for(fun() -> Fun() =:= true end, true, Milliseconds).

%% @doc Waits until a function returns a value; fails with the last value that it returned instead.
wait_for(Value, Fun) ->
    wait_for(Fun, Value, ?DEADLINE).

wait_for(Fun, Value, Milliseconds) ->
    look(Fun, Value, erlang:monotonic_time(millisecond) + Milliseconds).

look(Fun, Value, Deadline) ->
    case Fun() of
        Value ->
            ok;
        Other ->
            erlang:monotonic_time(millisecond) < Deadline orelse
                erlang:error({not_reached, Value, {last_seen, Other}}),
            receive
            after 5 -> look(Fun, Value, Deadline)
            end
    end.

%% @doc Fails when a message comes within so many milliseconds.
nothing_comes(Milliseconds) ->
    receive
        Message -> erlang:error({unexpected, Message})
    after Milliseconds -> ok
    end.

%% @doc The messages that are there.
mailbox() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.

%% @doc How many messages wait for a process.
mailbox_length(Pid) ->
    {message_queue_len, Length} = process_info(Pid, message_queue_len),
    Length.

%% @doc Waits until the process of a loop has done what it can.
settled(Loop) ->
    #{owner := Process} = tokamak_loop:info(Loop),
    Settled = [{message_queue_len, 0}, {status, waiting}],
    wait_for(Settled, fun() -> process_info(Process, [message_queue_len, status]) end).

%% @doc A process that runs functions for others until it is killed, see {@link ask/2}. It ends with its maker.
spawn_process(Setup) ->
    Maker = self(),
    spawn(fun() ->
        _ = spawn_monitor_of(Maker),
        serve(Setup())
    end).

%% Not a link: the maker is not to die with what it kills.
spawn_monitor_of(Maker) ->
    Server = self(),
    spawn(fun() ->
        Monitor = monitor(process, Maker),
        Other = monitor(process, Server),
        receive
            {'DOWN', Monitor, process, _, _} -> exit(Server, kill);
            {'DOWN', Other, process, _, _} -> ok
        end
    end).

serve(State) ->
    receive
        {run, From, Reference, Fun} ->
            From ! {Reference, run(Fun, State)},
            serve(State)
    end.

run(Fun, State) ->
    try
        {ok, Fun(State)}
    catch
        Class:Reason:Stack -> {Class, Reason, Stack}
    end.

%% @doc Has such a process run a function of what its setup returned.
ask(Pid, Fun) ->
    Monitor = monitor(process, Pid),
    Pid ! {run, self(), Monitor, Fun},
    receive
        {Monitor, {ok, Result}} ->
            demonitor(Monitor, [flush]),
            Result;
        {Monitor, {Class, Reason, Stack}} ->
            demonitor(Monitor, [flush]),
            erlang:raise(Class, Reason, Stack);
        {'DOWN', Monitor, process, Pid, Reason} ->
            exit({asked_process_died, Reason})
    end.

%% @doc Kills a process and waits for its end.
kill(Pid) ->
    exit(Pid, kill),
    wait_for_end(Pid).

%% @doc Waits until a process has ended.
wait_for_end(Pid) ->
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

%% @doc A pipe that stays open as long as the calling process lives, even if nobody uses its handles again.
pipe() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    _ = put({?MODULE, make_ref()}, {Read, Write}),
    {Read, Write}.

%% @doc A supervised loop; it ends with the calling process at the latest, even when that is killed in here.
new_loop(Options) when is_map(Options) ->
    Owner = self(),
    {Keeper, Monitor} = spawn_monitor(fun() -> keep_loop(Owner, Options) end),
    receive
        {Keeper, Loop} ->
            demonitor(Monitor, [flush]),
            Loop;
        {'DOWN', Monitor, process, Keeper, Reason} ->
            exit(Reason)
    end;
new_loop(Backend) ->
    new_loop(#{backend => Backend}).

keep_loop(Owner, Options) ->
    Monitor = monitor(process, Owner),
    {ok, Loop} = tokamak_loop:new(Options),
    Owner ! {self(), Loop},
    receive
        {'DOWN', Monitor, process, _, _} -> tokamak_loop:destroy(Loop)
    end.

raw_loop(Options) when is_map(Options) ->
    {ok, Loop} = tokamak_loop:open(Options),
    Loop;
raw_loop(Backend) ->
    raw_loop(#{backend => Backend}).

%% @doc Polls until so many events came.
collect(_Loop, 0) ->
    [];
collect(Loop, Count) ->
    case tokamak_loop:poll(Loop, ?DEADLINE) of
        [] -> erlang:error({events_missing, Count});
        Events when length(Events) =< Count -> Events ++ collect(Loop, Count - length(Events));
        Events -> erlang:error({too_many_events, Count, Events})
    end.

%% @doc Drains a raw loop until it says empty.
drain_all(Loop) ->
    case tokamak_loop:drain(Loop) of
        {more, Events} -> Events ++ drain_all(Loop);
        {empty, Events} -> Events
    end.

%% @doc The results of a pool's run, the last ones first, and its end.
results(Ref) ->
    results(Ref, []).

results(Ref, Results) ->
    receive
        {tokamak, Ref, {results, More}} ->
            ok = tokamak_pool:ack(Ref, 1),
            results(Ref, More ++ Results);
        {tokamak, Ref, End} ->
            {Results, End}
    after ?DEADLINE -> erlang:error({no_end, length(Results)})
    end.

%% @doc The number of descriptors of this VM.
open_files() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

%% @doc How many descriptors this VM may have.
file_limit() ->
    {ok, Limits} = file:read_file("/proc/self/limits"),
    {match, [Soft]} = re:run(Limits, "Max open files +([0-9]+|unlimited)", [
        {capture, all_but_first, binary}
    ]),
    case Soft of
        <<"unlimited">> -> 1 bsl 20;
        _ -> binary_to_integer(Soft)
    end.

%% @doc The threads of this VM whose names begin so: `[{Thread, Name}]'.
threads(Prefix) ->
    {ok, Threads} = file:list_dir("/proc/self/task"),
    [
        {Thread, Name}
     || Thread <- lists:sort(Threads),
        {ok, Comm} <- [file:read_file(task(Thread, "comm"))],
        Name <- [string:trim(binary_to_list(Comm))],
        lists:prefix(Prefix, Name)
    ].

task(Thread, File) ->
    filename:join(["/proc/self/task", Thread, File]).

%% @doc How often a thread left the processor, by its own will or not.
switches(Thread) ->
    {ok, Status} = file:read_file(task(Thread, "status")),
    {match, Counts} = re:run(Status, "ctxt_switches:\\s*([0-9]+)", [
        global, {capture, all_but_first, binary}
    ]),
    lists:sum([binary_to_integer(Count) || [Count] <- Counts]).

%% @doc The processor time of a thread, in ticks of 10 ms.
cpu_ticks(Thread) ->
    ticks(task(Thread, "stat")).

%% @doc The processor time of the whole VM.
own_cpu_ticks() ->
    ticks("/proc/self/stat").

%% The fields after the name, which may have anything in it: utime is the 12th, stime the 13th.
ticks(File) ->
    {ok, Stat} = file:read_file(File),
    [_, AfterName] = string:split(Stat, ") ", trailing),
    Fields = string:split(AfterName, " ", all),
    binary_to_integer(lists:nth(12, Fields)) + binary_to_integer(lists:nth(13, Fields)).

%% @doc The resident memory of this VM in bytes.
rss() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [KiB]} = re:run(Status, "VmRSS:\\s*([0-9]+) kB", [{capture, all_but_first, binary}]),
    binary_to_integer(KiB) * 1024.

%% @doc What must not grow: descriptors, threads, loops, owners. All threads of the VM count, not those with our
%% names: a thread that has been started has its name only when it first ran.
resources() ->
    Counts = tokamak_nif:counts(),
    {ok, Threads} = file:list_dir("/proc/self/task"),
    Counts#{open_files => open_files(), threads => length(Threads)}.

%% @doc Waits until nothing is left of what came since an earlier {@link resources/0}.
given_back(Before) ->
    true = erlang:garbage_collect(),
    wait_for(
        fun() -> [{Key, N, now, Now} || {Key, N} <- maps:to_list(Before), Now <- [maps:get(Key, resources())], Now > N] end,
        [],
        ?DEADLINE
    ).

%% @doc CLOCK_MONOTONIC in nanoseconds, which Erlang's monotonic time follows with corrections.
clock() ->
    {time, Native} = lists:keyfind(time, 1, erlang:system_info(os_monotonic_time_source)),
    erlang:convert_time_unit(Native, native, nanosecond).

%% @doc Keeps the processor for so many microseconds.
keep_busy(Microseconds) ->
    keep_busy_until(erlang:monotonic_time(microsecond) + Microseconds).

keep_busy_until(End) ->
    case erlang:monotonic_time(microsecond) < End of
        true -> keep_busy_until(End);
        false -> ok
    end.

%% @doc Runs a function with a directory that is there as long as it runs.
with_directory(Fun) ->
    %% With the time: in namespaces of their own, VMs have the same number.
    Name = io_lib:format("tokamak_~s_~b_~b", [os:getpid(), erlang:system_time(), erlang:unique_integer([positive])]),
    Temporary = os:getenv("TMPDIR", "/tmp"),
    Directory = filename:join(Temporary, lists:flatten(Name)),
    ok = file:make_dir(Directory),
    try
        Fun(Directory)
    after
        _ = file:del_dir_r(Directory)
    end.

repeat(0, _Fun) ->
    ok;
repeat(Times, Fun) ->
    _ = Fun(),
    repeat(Times - 1, Fun).

%% @doc Another VM with the code of this one, where more may break. It ends with the calling process.
start_peer() ->
    start_peer(#{}).

%% @doc The same with the code of some directories, or with some other options of `peer:start_link/1'.
start_peer(Options) when is_map(Options) ->
    start_peer([Path || Path <- code:get_path(), filename:pathtype(Path) =:= absolute], Options);
start_peer(Directories) ->
    start_peer(Directories, #{}).

start_peer(Directories, Options) ->
    Args = lists:append([["-pa", Directory] || Directory <- Directories]),
    {ok, Peer, _Node} = peer:start_link(
        maps:merge(#{connection => standard_io, args => Args, wait_boot => 30_000}, Options)
    ),
    Peer.
