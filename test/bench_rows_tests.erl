%% SPDX-License-Identifier: Apache-2.0
%% What the benches make of what they measured.
-module(bench_rows_tests).

-include_lib("eunit/include/eunit.hrl").

bench_report_test_() ->
    tokamak_test:cases([
        {"a ratio compares the runs of one turn, and the row has their median", fun ratios_are_of_one_turn/0},
        {"of a cost, less is better", fun less_cost_is_better/0},
        {"a verdict needs a mark", fun a_verdict_needs_a_mark/0},
        {"a latency has its distribution, as far as there are values for it", fun a_latency_has_a_distribution/0},
        {"a row says where it stands in a plot", fun a_row_has_its_place/0},
        {"memory is sampled from the start to the end", fun memory_is_sampled/0},
        {"the file has rows, memory and machine as JSON", fun the_file_is_json/0}
    ]).

ratios_are_of_one_turn() ->
    %% 10, 30 and 20 events in a second beside 1, 10 and 4.
    Row = row(#{subject => [sample(10), sample(30), sample(20)], baseline => [sample(1), sample(10), sample(4)]}),
    ?assertEqual([10.0, 3.0, 5.0], maps:get(ratios, Row)),
    ?assertEqual(5.0, maps:get(ratio, Row)),
    ?assertMatch(#{result := #{median := 20.0, runs := [10.0, 30.0, 20.0]}}, Row).

less_cost_is_better() ->
    ?assertMatch(
        #{ratio := 0.25, unit := <<"event">>},
        row(#{kind => wall_cost, subject => [sample(1)], baseline => [sample(4)]})
    ).

a_verdict_needs_a_mark() ->
    Marks = #{must => 2, aim => 4},
    Verdict = fun(Count, More) ->
        maps:get(verdict, row(More#{subject => [sample(Count)], baseline => [sample(10)]}))
    end,
    ?assertEqual([missed, must, aim], [Verdict(Count, Marks) || Count <- [19, 20, 40]]),
    ?assertEqual(must, Verdict(90, #{must => 2})),
    ?assertEqual(null, Verdict(90, #{})).

a_latency_has_a_distribution() ->
    Sample = (sample(100))#{latencies => lists:seq(100, 1, -1)},
    #{result := Result} = row(#{kind => latency, subject => [Sample], baseline => [Sample]}),
    ?assertMatch(#{n := 100, median := 50, p99 := 99, max := 100, rate := 100.0}, Result),
    #{distribution := Distribution} = Result,
    ?assertEqual([0, 1], hd(Distribution)),
    ?assertEqual([99, 99], lists:last(Distribution)),
    ?assertEqual(Distribution, lists:sort(Distribution)).

a_row_has_its_place() ->
    Plot = #{title => ["Ev", "ents"], line => "raw", x_name => "producers", x => 4},
    Sides = #{subject => [sample(1)], baseline => [sample(1)]},
    ?assertEqual(
        #{title => <<"Events">>, line => <<"raw">>, x_name => <<"producers">>, x => 4},
        maps:get(plot, row(Sides#{plot => Plot}))
    ),
    ?assertNot(is_map_key(plot, row(Sides))).

memory_is_sampled() ->
    Hold = fun() ->
        Held = binary:copy(<<1>>, 64 * 1024 * 1024),
        %% For longer than the time between samples.
        receive after 100 -> byte_size(Held) end
    end,
    #{name := <<"held">>, curves := [#{name := <<"a binary">>, samples := Samples}]} =
        bench_memory:over_time("held", [{"a binary", Hold}]),
    {Times, Sizes} = lists:unzip([{Time, Size} || [Time, Size] <- Samples]),
    ?assertEqual(Times, lists:sort(Times)),
    ?assert(lists:last(Times) >= 100),
    %% The VM may have had the memory already.
    ?assert(lists:max(Sizes) >= 64 * 1024).

the_file_is_json() ->
    tokamak_test:with_directory(fun(Directory) ->
        File = filename:join(Directory, "results.json"),
        Row = row(#{name => "a \"row\"", subject => [sample(1)], baseline => [sample(1)]}),
        Memory = #{name => <<"held">>, curves => []},
        Options = #{output => File, runs => 1, scale => 1.0, arguments => ["events"]},
        ok = bench_report:write(#{load => 0.5}, Options, [Row, Memory]),
        {ok, Json} = file:read_file(File),
        ?assertMatch(<<"{\"arguments\": [\"events\"], \"memory\": [{\"curves\": []", _/binary>>, Json),
        [?assertMatch({_, _}, binary:match(Json, Part)) || Part <- [
            <<"\"rows\": [{">>, <<"\"name\": \"a \\\"row\\\"\"">>, <<"\"ratios\": [1.0]">>, <<"\"system\": {\"load\": 0.5}">>
        ]]
    end).

row(Description) ->
    Defaults = #{name => "a row", kind => rate, unit => "event", baseline_name => "a baseline"},
    bench_report:row(maps:merge(Defaults, Description)).

%% So many in a second.
sample(Count) ->
    Keys = [user, system, voluntary_switches, involuntary_switches, minor_faults, major_faults, peak_rss],
    #{count => Count, wall => 1000000000, usage => maps:from_list([{Key, 0} || Key <- Keys])}.
