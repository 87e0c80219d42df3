%% SPDX-License-Identifier: Apache-2.0
%% @doc Rows of the benches: a table for people, JSON for programs.
-module(bench_report).

-export([row/1]).
-export([print_header/2, print_title/1, print/1, print_summary/2, write/3]).
-export_type([row/0, description/0, plot/0]).

-type kind() :: rate | wall_cost | cpu_cost | latency.
%% `rate': per second, more is better. The others are nanoseconds: `wall_cost' and `cpu_cost' of one
%% operation, `latency' with its distribution.
-type description() :: #{
    name := iodata(),
    kind := kind(),
    unit := iodata(),
    subject := bench_measure:measurement(),
    baseline_name := iodata(),
    baseline := bench_measure:measurement(),
    must => float(),
    aim => float(),
    plot => plot()
}.
%% `unit' is what a rate or a cost counts: event, call, byte.
-type plot() :: #{title := iodata(), line := iodata(), x_name := iodata(), x := number()}.
%% Rows with the same title are points of one plot; those with the same line, of one line, beside those of
%% their baselines.
-type row() :: #{atom() => bench_json:value()}.

%% @doc Makes a row. Its ratios say how much better the subject is than the baseline of the same turn;
%% their median is the row's.
-spec row(description()) -> row().
row(#{kind := Kind, subject := Subject, baseline := Baseline} = Description) ->
    Ratios = [
        ratio(Kind, value(Kind, [A]), value(Kind, [B]))
     || {A, B} <- lists:zip(Subject, Baseline)
    ],
    Ratio = bench_measure:median(Ratios),
    Marks = maps:with([must, aim], Description),
    (maps:merge(Marks, plot(Description)))#{
        name => iolist_to_binary(maps:get(name, Description)),
        kind => Kind,
        unit => iolist_to_binary(maps:get(unit, Description)),
        result => result(Kind, Subject),
        baseline_name => iolist_to_binary(maps:get(baseline_name, Description)),
        baseline => result(Kind, Baseline),
        ratio => Ratio,
        ratios => Ratios,
        verdict => verdict(Ratio, Marks),
        usage => bench_measure:usage(Subject),
        baseline_usage => bench_measure:usage(Baseline)
    }.

plot(#{plot := #{x := X} = Plot}) ->
    Texts = maps:map(fun(_, Text) -> iolist_to_binary(Text) end, maps:remove(x, Plot)),
    #{plot => Texts#{x => X}};
plot(_Description) ->
    #{}.

value(rate, Samples) -> bench_measure:rate(Samples);
value(wall_cost, Samples) -> bench_measure:wall_cost(Samples);
value(cpu_cost, Samples) -> bench_measure:cpu_cost(Samples);
value(latency, Samples) -> bench_measure:percentile(50, bench_measure:pooled(Samples)).

ratio(rate, Subject, Baseline) -> Subject / Baseline;
ratio(_Cost, Subject, Baseline) -> Baseline / max(Subject, 1.0e-9).

result(latency, Samples) ->
    Sorted = bench_measure:pooled(Samples),
    #{
        n => length(Sorted),
        median => bench_measure:percentile(50, Sorted),
        p99 => bench_measure:percentile(99, Sorted),
        p999 => bench_measure:percentile(99.9, Sorted),
        max => lists:last(Sorted),
        runs => [value(latency, [Sample]) || Sample <- Samples],
        rate => bench_measure:rate(Samples),
        distribution => distribution(Sorted)
    };
result(Kind, Samples) ->
    #{
        n => maps:get(count, hd(Samples)),
        median => value(Kind, Samples),
        runs => [value(Kind, [Sample]) || Sample <- Samples]
    }.

%% Percentiles with their values, as far as there are enough values for them.
distribution(Sorted) ->
    Last = 100 * (1 - 1 / length(Sorted)),
    Percents = lists:seq(0, 90, 5) ++ [92.5, 95, 97.5, 98, 99, 99.5, 99.75, 99.9, 99.95, 99.99],
    [[Percent, bench_measure:percentile(Percent, Sorted)] || Percent <- Percents, Percent =< Last].

verdict(Ratio, #{aim := Aim}) when Ratio >= Aim -> aim;
verdict(Ratio, #{must := Must}) when Ratio >= Must -> must;
verdict(_Ratio, #{must := _}) -> missed;
verdict(_Ratio, _Marks) -> null.

-spec print_header(map(), tokamak_bench:options()) -> ok.
print_header(#{otp := Otp, schedulers := Schedulers, processor := Processor, load := Load}, #{runs := Runs}) ->
    io:format(
        "OTP ~ts, ~b schedulers, ~ts, load ~.2f~n"
        "Medians of ~b run(s). Ratio: how much better than the baseline. Then, per run: peak RSS, user~n"
        "and system time, context switches (voluntary/not), page faults (minor/major).~n",
        [Otp, Schedulers, Processor, Load, Runs]
    ).

-spec print_title(string()) -> ok.
print_title(Name) ->
    io:format(
        "~n~-44ts ~-33ts ~-30ts ~-33ts ~8ts  ~-13ts ~8ts ~8ts ~8ts ~13ts ~11ts~n",
        [
            string:uppercase(Name), "result", "baseline", "its result", "ratio", "must/aim",
            "RSS MB", "user ms", "sys ms", "switches", "faults"
        ]
    ).

-spec print(row() | bench_memory:memory()) -> ok.
print(#{curves := _} = Memory) ->
    bench_memory:print(Memory);
print(#{name := Name, kind := Kind, result := Result, baseline_name := BaselineName} = Row) ->
    #{baseline := Baseline, ratio := Ratio, usage := Usage} = Row,
    io:format(
        "~-44ts ~-33ts ~-30ts ~-33ts ~7.2fx  ~-13ts ~ts~n",
        [
            Name, format(Kind, Result), BaselineName, format(Kind, Baseline), Ratio, marks(Row),
            format_usage(Usage)
        ]
    ).

format(rate, #{median := Rate}) when Rate >= 1.0e6 -> io_lib:format("~.2f M/s", [Rate / 1.0e6]);
format(rate, #{median := Rate}) -> io_lib:format("~.1f k/s", [Rate / 1.0e3]);
format(latency, #{median := Median, p99 := P99, p999 := P999}) ->
    io_lib:format("~ts p99 ~ts p999 ~ts", [time(Median), time(P99), time(P999)]);
format(cpu_cost, #{median := Cost}) -> [time(Cost), " cpu"];
format(wall_cost, #{median := Cost}) -> time(Cost).

time(Nanoseconds) when abs(Nanoseconds) >= 1.0e6 -> io_lib:format("~.2fms", [Nanoseconds / 1.0e6]);
time(Nanoseconds) when abs(Nanoseconds) >= 1.0e3 -> io_lib:format("~.1fus", [Nanoseconds / 1.0e3]);
time(Nanoseconds) -> io_lib:format("~.1fns", [Nanoseconds * 1.0]).

marks(#{must := Must, verdict := Verdict} = Row) ->
    io_lib:format("~s/~s ~s", [mark(Must), mark(maps:get(aim, Row, none)), verdict_text(Verdict)]);
marks(_Row) ->
    "".

mark(none) -> "";
mark(Mark) when is_integer(Mark) -> integer_to_binary(Mark);
mark(Mark) -> float_to_binary(Mark, [{decimals, 2}, compact]).

verdict_text(aim) -> "aim";
verdict_text(must) -> "must";
verdict_text(missed) -> "MISSED".

format_usage(#{user := User, system := System, peak_rss := Rss} = Usage) ->
    #{voluntary_switches := Voluntary, involuntary_switches := Involuntary} = Usage,
    #{minor_faults := Minor, major_faults := Major} = Usage,
    io_lib:format(
        "~8.1f ~8.1f ~8.1f ~13ts ~11ts",
        [Rss / 1024, User / 1000, System / 1000, pair(Voluntary, Involuntary), pair(Minor, Major)]
    ).

pair(A, B) -> io_lib:format("~b/~b", [A, B]).

-spec print_summary([row() | bench_memory:memory()], tokamak_bench:options()) -> ok.
print_summary(Entries, #{output := Output}) ->
    Count = fun(Verdict) -> length([ok || #{verdict := V} <- Entries, V =:= Verdict]) end,
    io:format(
        "~nOf the rows with a mark: ~b reach the aim, ~b the must, ~b miss it. Written to ~ts~n",
        [Count(aim), Count(must), Count(missed), Output]
    ).

%% @doc Writes what native/tokamak_bench_report reads.
-spec write(map(), tokamak_bench:options(), [row() | bench_memory:memory()]) -> ok.
write(System, #{output := Output, runs := Runs, scale := Scale, arguments := Arguments}, Entries) ->
    ok = filelib:ensure_dir(Output),
    {Memory, Rows} = lists:partition(fun(Entry) -> is_map_key(curves, Entry) end, Entries),
    Json = bench_json:encode(#{
        system => System,
        arguments => [unicode:characters_to_binary(Argument) || Argument <- Arguments],
        runs => Runs,
        scale => Scale,
        rows => Rows,
        memory => Memory
    }),
    ok = file:write_file(Output, [Json, "\n"]).
