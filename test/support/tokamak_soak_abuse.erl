%% SPDX-License-Identifier: Apache-2.0
%% Random killing across every module: processes of all loads run their rounds and are killed again and again, and the
%% application is restarted now and then. Afterwards everything is back to the start, or it is said what is not.
-module(tokamak_soak_abuse).

-export([run/1]).

%% One of all processes is killed so often, in milliseconds.
-define(KILL_INTERVAL, 5).
%% The application is restarted so often in a run.
-define(RESTARTS, 5).
%% What runs before the start is measured: it loads modules, and fills what is kept for reuse.
-define(WARM_UP, 5000).
-define(PATIENCE, 60_000).
-define(MOST_FAILURES, 20).

-record(abuse, {
    file :: file:name(),
    %% `{Keeper, Pid}' of all processes that may be killed.
    victims = ets:new(victims, [public]) :: ets:table(),
    %% Rounds of each load, kills, restarts.
    counts = ets:new(counts, [public, {write_concurrency, true}]) :: ets:table(),
    failures = ets:new(failures, [public]) :: ets:table(),
    %% Counts up when a restart begins and when it is over: odd in between.
    epoch = counters:new(1, []) :: counters:counters_ref()
}).

%% @doc Runs the abuse for so many milliseconds: the table of before and after, what was done, and what is wrong.
run(Milliseconds) ->
    tokamak_test:with_directory(fun(Directory) ->
        File = filename:join(Directory, "file"),
        ok = file:write_file(File, binary:copy(<<"0123456789abcdef">>, 20_000)),
        ok = application:load(tokamak),
        ok = application:set_env(tokamak, max_in_flight, tokamak_soak_loads:max_in_flight()),
        ok = application:set_env(tokamak, drain_timeout, 100),
        _ = logger:set_primary_config(level, none),
        {_, _, _} = abuse(File, min(?WARM_UP, Milliseconds)),
        Before = tokamak_soak_table:measure(File),
        {Counts, Failures, _} = abuse(File, Milliseconds),
        {After, Grown} = tokamak_soak_table:settle(File, Before, ?PATIENCE),
        #{before => Before, 'after' => After, counts => Counts, grown => Grown, failures => Failures}
    end).

abuse(File, Milliseconds) ->
    Abuse = #abuse{file = File},
    {ok, _} = application:ensure_all_started(tokamak),
    Keepers = [
        spawn_monitor(fun() -> keep(Name, Round, Abuse) end)
     || {Name, Count, Round} <- tokamak_soak_loads:all(), _ <- lists:seq(1, Count)
    ],
    Killer = spawn_link(fun() -> kill_on(Abuse) end),
    restart_now_and_then(Milliseconds div (?RESTARTS + 1), ?RESTARTS, Abuse),
    end_process(Killer),
    [ok = stop_keeper(Keeper) || Keeper <- Keepers],
    end_abuse(Abuse).

end_abuse(#abuse{counts = Counts, failures = Failures, victims = Victims}) ->
    Result = {maps:from_list(ets:tab2list(Counts)), ets:tab2list(Failures), ets:tab2list(Victims)},
    [true = ets:delete(Table) || Table <- [Counts, Failures, Victims]],
    Result.

end_process(Pid) ->
    true = unlink(Pid),
    tokamak_test:kill(Pid).

stop_keeper({Keeper, Monitor}) ->
    Keeper ! stop,
    receive
        {'DOWN', Monitor, process, Keeper, Reason} -> normal = Reason
    after ?PATIENCE -> error(keeper_does_not_stop)
    end,
    ok.

%% Keeps a process at work that runs rounds of a load.
keep(Name, Round, Abuse) ->
    Epoch = counters:get(Abuse#abuse.epoch, 1),
    {Pid, Monitor} = spawn_monitor(fun() -> rounds(Name, Round, Abuse) end),
    true = ets:insert(Abuse#abuse.victims, {self(), Pid}),
    receive
        {'DOWN', Monitor, process, Pid, Reason} ->
            note(Reason, Name, Epoch, Abuse),
            keep(Name, Round, Abuse);
        stop ->
            true = ets:delete(Abuse#abuse.victims, self()),
            ok = tokamak_test:kill(Pid)
    end.

rounds(Name, Round, #abuse{counts = Counts, file = File} = Abuse) ->
    _ = Round(File),
    _ = ets:update_counter(Counts, Name, 1, {Name, 0}),
    rounds(Name, Round, Abuse).

%% Who was at work during a restart may fail in any way; it tries again soon.
note(killed, _Name, _Epoch, _Abuse) ->
    ok;
note(Reason, Name, Epoch, #abuse{epoch = Counter, failures = Failures}) ->
    case Epoch rem 2 =:= 1 orelse counters:get(Counter, 1) =/= Epoch of
        true ->
            receive
            after 5 -> ok
            end;
        false ->
            ets:info(Failures, size) < ?MOST_FAILURES andalso ets:insert(Failures, {make_ref(), Name, Reason})
    end.

kill_on(#abuse{victims = Victims, counts = Counts} = Abuse) ->
    receive
    after ?KILL_INTERVAL -> ok
    end,
    case ets:tab2list(Victims) of
        [] ->
            ok;
        All ->
            {_Keeper, Victim} = lists:nth(rand:uniform(length(All)), All),
            exit(Victim, kill),
            ets:update_counter(Counts, kills, 1, {kills, 0})
    end,
    kill_on(Abuse).

restart_now_and_then(Interval, Left, Abuse) ->
    receive
    after Interval -> ok
    end,
    case Left of
        0 ->
            ok;
        _ ->
            ok = restart(Abuse),
            restart_now_and_then(Interval, Left - 1, Abuse)
    end.

restart(#abuse{epoch = Epoch, counts = Counts}) ->
    ok = counters:add(Epoch, 1, 1),
    ok = application:stop(tokamak),
    ok = application:start(tokamak),
    ok = counters:add(Epoch, 1, 1),
    _ = ets:update_counter(Counts, restarts, 1, {restarts, 0}),
    ok.
