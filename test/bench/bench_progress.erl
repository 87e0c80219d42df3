%% SPDX-License-Identifier: Apache-2.0
%% @doc Reports of progress, nearly all of them held back, beside what they are compared with: the cost of
%% a native call that does nothing, and of a message to a process that keeps the latest value.
-module(bench_progress).

-export([benches/1]).

-define(REPORTS, 1000000).
-define(REPORTERS, 2).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    Count = bench_measure:scaled(?REPORTS, Options),
    [fun() -> marks(Count, Options) end | [fun() -> keys(Keys, Count, Options) end || Keys <- [1, 100, 10000]]].

%% The mark is a time of its own: the row's ratio is to 150 ns, so 1 is what must be.
marks(Count, Options) ->
    Subjects = [
        {report, fun() -> reports(Count, 1, 1) end},
        {noop, fun() ->
            bench_measure:timed(Count, fun() -> repeat(Count, fun(_) -> tokamak_bench_nif:noop() end) end)
        end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    Allowed = [Sample#{count := 1, wall := 150} || Sample <- maps:get(report, Measured)],
    [
        bench_report:row(#{
            name => "suppressed report",
            kind => wall_cost,
            unit => "report",
            subject => maps:get(report, Measured),
            baseline_name => "what it may cost",
            baseline => Allowed,
            must => 1,
            aim => 150 / 80
        }),
        row("suppressed report", Measured, report, noop, "a native call", #{})
    ].

%% As fast as two processes can.
keys(Keys, Count, Options) ->
    Subjects = [
        {report, fun() -> reports(Count, Keys, ?REPORTERS) end},
        {message, fun() -> messages(Count, Keys) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    Name = io_lib:format("reports of ~b key(s), 2 reporters", [Keys]),
    Plot = #{title => "Reports", line => "tokamak_progress:report/3", x_name => "keys", x => Keys},
    [row(Name, Measured, report, message, "a process that keeps the latest", #{plot => Plot})].

row(Name, Measured, Subject, Baseline, BaselineName, More) ->
    bench_report:row(More#{
        name => Name,
        kind => wall_cost,
        unit => "report",
        subject => maps:get(Subject, Measured),
        baseline_name => BaselineName,
        baseline => maps:get(Baseline, Measured)
    }).

reports(Count, Keys, Reporters) ->
    Ref = tokamak_progress:subscribe(all),
    Each = Count div Reporters,
    Report = fun(N) -> tokamak_progress:report(N rem Keys, N, Count + 1) end,
    Sample = bench_measure:timed(Each * Reporters, fun() ->
        together(Reporters, fun() -> repeat(Each, Report) end)
    end),
    ok = tokamak_progress:unsubscribe(Ref),
    [ok = tokamak_progress:report(Key, 1, 1) || Key <- lists:seq(0, Keys - 1)],
    Sample.

messages(Count, Keys) ->
    Each = Count div ?REPORTERS,
    Keeper = spawn_opt(fun() -> keep(#{}) end, [link, {message_queue_data, off_heap}]),
    Report = fun(N) -> Keeper ! {report, N rem Keys, N, Count + 1} end,
    bench_measure:timed(Each * ?REPORTERS, fun() ->
        Counted = together(?REPORTERS, fun() -> repeat(Each, Report) end),
        Keeper ! {stop, self()},
        receive stopped -> Counted end
    end).

keep(Latest) ->
    receive
        {report, Key, Done, Total} -> keep(Latest#{Key => {Done, Total}});
        {stop, From} -> From ! stopped
    end.

together(1, Fun) ->
    Fun();
together(Reporters, Fun) ->
    Pids = [spawn_monitor(fun() -> exit({counted, Fun()}) end) || _ <- lists:seq(1, Reporters)],
    lists:sum([receive {'DOWN', Monitor, process, Pid, {counted, N}} -> N end || {Pid, Monitor} <- Pids]).

repeat(Count, Fun) -> repeat(Count, Count, Fun).

repeat(0, Count, _Fun) ->
    Count;
repeat(N, Count, Fun) ->
    _ = Fun(N),
    repeat(N - 1, Count, Fun).
