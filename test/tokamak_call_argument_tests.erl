%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_call_argument_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, explanation/1]).

argument_test_() ->
    call_fixture:tests([
        fun a_wrong_argument_is_named_with_the_type_that_was_expected/0,
        fun an_improper_list_is_a_wrong_argument/0,
        fun an_integer_that_does_not_fit_is_a_wrong_argument/0,
        fun an_improper_list_that_is_pushed_is_a_wrong_item/0,
        fun too_few_and_too_many_arguments_are_explained/0,
        fun what_is_no_operation_and_no_list_is_explained/0,
        fun the_error_is_that_of_the_function_that_was_called/0,
        fun an_unknown_option_is_named_and_a_wrong_value_explained/0,
        fun what_is_no_call_is_explained/0,
        fun what_is_no_stream_is_explained/0,
        fun a_wrong_call_of_a_gather_is_explained/0,
        fun no_argument_makes_an_atom/0
    ]).

-define(CALLS(Op, Args), [
    fun() -> tokamak:call(Op, Args) end,
    fun() -> tokamak:call(Op, Args, #{timeout => 10}) end,
    fun() -> tokamak:async(Op, Args) end,
    fun() -> tokamak:cast(Op, Args) end
]).

-define(OPENS(Op, Args), [
    fun() -> tokamak:stream(Op, Args) end,
    fun() -> tokamak:open(Op, Args) end
]).

all_explain(Explanation, Calls) ->
    [?assertEqual(Explanation, explanation(Call)) || Call <- Calls].

a_wrong_argument_is_named_with_the_type_that_was_expected() ->
    all_explain(#{2 => "its element 1 is not a u64"}, ?CALLS(sleep, [-1])),
    all_explain(#{2 => "its element 2 is not a u64"}, ?CALLS(op(later), [any, "2"])),
    all_explain(#{2 => "its element 2 is not a PathOrAlgorithm"}, ?CALLS(hash_file, ["/etc/hosts", md5])),
    all_explain(#{2 => "its element 1 is not a String"}, ?CALLS(op(panics), [[a]])),
    all_explain(#{2 => "its element 2 is not a u64"}, [fun() -> tokamak:stream(count, [1, 1.0]) end]),
    all_explain(#{2 => "its element 1 is not a i64"}, [fun() -> tokamak:open(op(sums), [1 bsl 63]) end]).

an_improper_list_is_a_wrong_argument() ->
    Lists = #{2 => "its element 1 is not a Vec<Vec<u8>>"},
    [all_explain(Lists, ?CALLS(op(lengths), [Wrong])) || Wrong <- [[[1] | 2], [[1], [2 | 3]], [1]]],
    ByName = #{2 => "its element 1 is not a HashMap<String, Vec<u8>>"},
    all_explain(ByName, ?CALLS(op(lengths_by_name), [#{<<"a">> => [1 | 2]}])),
    all_explain(#{2 => "its element 1 is not a Path"}, ?CALLS(list_dir, ["/tm" ++ $p])),
    ?assertEqual({ok, [2, 0]}, tokamak:call(op(lengths), [[[1, 2], []]])),
    ?assertEqual({ok, #{<<"a">> => 1}}, tokamak:call(op(lengths_by_name), [#{<<"a">> => [1]}])).

an_integer_that_does_not_fit_is_a_wrong_argument() ->
    Fits = [255, [-32768, 32767], -128],
    ?assertEqual({ok, list_to_tuple(Fits)}, tokamak:call(op(small), Fits)),
    ?assertEqual({ok, {0, [], nil}}, tokamak:call(op(small), [0, [], nil])),
    [
        all_explain(#{2 => lists:concat(["its element ", Index, " is not a ", Type])}, ?CALLS(op(small), Args))
     || {Index, Type, Args} <- [
            {1, "u8", [256, [], 0]},
            {1, "u8", [-1, [], 0]},
            {1, "u8", [1 bsl 64, [], 0]},
            {2, "Vec<i16>", [0, [32768], 0]},
            {2, "Vec<i16>", [0, [1 | 2], 0]},
            {3, "Option<i8>", [0, [], 128]},
            {3, "Option<i8>", [0, [], undefined]}
        ]
    ].

an_improper_list_that_is_pushed_is_a_wrong_item() ->
    Stream = tokamak:open(op(lengths_of_pushed), []),
    ?assertMatch(#{2 := "not a" ++ _}, explanation(fun() -> tokamak:push(Stream, [1, 2 | 3]) end)),
    ok = tokamak:push(Stream, [1, 2]),
    ?assertEqual({ok, 2}, tokamak:next(Stream)),
    ok = tokamak:close(Stream).

too_few_and_too_many_arguments_are_explained() ->
    One = #{2 => "not a list of 1 argument, as the operation takes"},
    Two = #{2 => "not a list of 2 arguments, as the operation takes"},
    [all_explain(One, ?CALLS(Op, Args)) || Op <- [echo, sleep], Args <- [[], [1, 2, 3]]],
    [all_explain(Two, ?CALLS(op(later_in_runtime), Args)) || Args <- [[], [1, 2, 3]]],
    all_explain(One, ?CALLS(echo, lists:seq(1, 100))),
    all_explain(One, ?CALLS(echo, [1 | 2])),
    all_explain(Two, [fun() -> tokamak:stream(count, []) end]),
    None = #{2 => "not an empty list: the operation takes no arguments"},
    all_explain(None, ?CALLS(op(nothing), [1])).

what_is_no_operation_and_no_list_is_explained() ->
    Op = #{1 => "neither an atom nor {Engine, Name}"},
    [all_explain(Op, ?CALLS(Wrong, []) ++ ?OPENS(Wrong, [])) || Wrong <- ["echo", 1, {a, "b"}, {a, b, c}]],
    ?assertMatch(#{1 := _, 2 := "not a list"}, explanation(fun() -> tokamak:call(1, x) end)),
    [?assertMatch(#{2 := "not " ++ _}, explanation(Call)) || Call <- ?CALLS(echo, x)].

the_error_is_that_of_the_function_that_was_called() ->
    Raised = fun(Function, Args) ->
        try apply(tokamak, Function, Args) of
            Result -> error({no_badarg, Result})
        catch
            error:badarg:Stack ->
                [{Module, Name, Given, _} | _] = Stack,
                {Module, Name, Given}
        end
    end,
    [
        ?assertEqual({tokamak, Function, [Op, [x, y]]}, Raised(Function, [Op, [x, y]]))
     || {Function, Op} <- [{call, sleep}, {cast, sleep}, {async, sleep}, {stream, count}, {open, op(sums)}]
    ],
    [
        ?assertEqual({tokamak, Function, [[make_ref], 1]}, Raised(Function, [[make_ref], 1]))
     || Function <- [await_many, await_any]
    ].

an_unknown_option_is_named_and_a_wrong_value_explained() ->
    Unknown = "unknown option time_out (known: node, timeout)",
    ?assertEqual(#{3 => Unknown}, explanation(fun() -> tokamak:call(echo, [1], #{time_out => 1}) end)),
    [
        ?assertMatch(#{3 := "option timeout is not" ++ _}, explanation(fun() ->
            tokamak:call(echo, [1], #{timeout => Wrong})
        end))
     || Wrong <- [-1, 1.0, never, 1 bsl 32]
    ],
    ?assertEqual(#{3 => "not a map of options"}, explanation(fun() -> tokamak:call(echo, [1], []) end)),
    ?assertMatch(#{3 := "unknown option" ++ _}, explanation(fun() -> tokamak:async(echo, [1], #{a => 1}) end)),
    ?assertMatch(#{3 := "unknown option inbox" ++ _}, explanation(fun() ->
        tokamak:stream(count, [1, 1], #{inbox => 1})
    end)),
    [
        ?assertMatch(#{3 := "option window" ++ _}, explanation(fun() ->
            tokamak:stream(count, [1, 1], #{window => Wrong})
        end))
     || Wrong <- [0, -1, infinity, 1 bsl 31]
    ],
    ?assertMatch(#{3 := "option inbox" ++ _}, explanation(fun() ->
        tokamak:open(op(sums), [1], #{inbox => 0})
    end)).

what_is_no_call_is_explained() ->
    Stream = tokamak:stream(count, [1, 0]),
    [
        begin
            ?assertEqual(#{1 => "not the reference of a call"}, explanation(fun() -> tokamak:await(Wrong) end)),
            ?assertEqual(#{1 => "not the reference of a call"}, explanation(fun() -> tokamak:cancel(Wrong) end)),
            Many = #{1 => "not a list of references of calls"},
            ?assertEqual(Many, explanation(fun() -> tokamak:await_many([Wrong], 1) end)),
            ?assertEqual(Many, explanation(fun() -> tokamak:await_any([Wrong], 1) end))
        end
     || Wrong <- [make_ref(), self(), x, Stream]
    ],
    Ref = tokamak:async(echo, [1]),
    [
        ?assertMatch(#{2 := "not a number of milliseconds" ++ _}, explanation(fun() -> Wait(Wrong) end))
     || Wrong <- [-1, x, 1 bsl 32],
        Wait <- [
            fun(Timeout) -> tokamak:await(Ref, Timeout) end,
            fun(Timeout) -> tokamak:await_many([Ref], Timeout) end,
            fun(Timeout) -> tokamak:await_any([Ref], Timeout) end
        ]
    ],
    ?assertEqual(#{1 => "empty: there is no first end"}, explanation(fun() -> tokamak:await_any([], 1) end)),
    ?assertEqual({ok, 1}, tokamak:await(Ref)),
    ok = tokamak:close(Stream).

what_is_no_stream_is_explained() ->
    [
        begin
            Stream = #{1 => "not a stream"},
            ?assertEqual(Stream, explanation(fun() -> tokamak:next(Wrong) end)),
            ?assertEqual(Stream, explanation(fun() -> tokamak:push(Wrong, 1) end)),
            ?assertEqual(Stream, explanation(fun() -> tokamak:close(Wrong) end))
        end
     || Wrong <- [make_ref(), x, {tokamak_stream, tokamak_nif, make_ref()}, {tokamak_stream, lists, make_ref()}]
    ],
    ?assertMatch(#{1 := "not a function" ++ _}, explanation(fun() -> tokamak:fold(x, 0, {error, x}) end)).

a_wrong_call_of_a_gather_is_explained() ->
    [
        ?assertEqual(#{1 => "not a list of {Op, Args}"}, explanation(fun() -> tokamak:gather(Wrong) end))
     || Wrong <- [x, [x], [{echo, x}], [{"echo", []}], [{echo, []} | x], [{echo, [], 1}]]
    ],
    Text = "in call 2, the argument list: not a list of 1 argument, as the operation takes",
    ?assertEqual(#{1 => Text}, explanation(fun() -> tokamak:gather([{echo, [1]}, {echo, []}]) end)),
    [
        ?assertMatch(#{2 := _}, explanation(fun() -> tokamak:gather([{echo, [1]}], Wrong) end))
     || Wrong <- [#{mode => fast}, #{max_concurrency => 0}, #{timeout => x}, #{window => 1}, x]
    ].

no_argument_makes_an_atom() ->
    Calls = fun() ->
        ?assertMatch({error, _}, tokamak:call(hash_file, [<<"/no">>, <<"no such atom anywhere 1">>])),
        ?assertMatch({error, _}, tokamak:call(op(panics), [<<"no such atom anywhere 2">>])),
        ?assertMatch({error, _}, tokamak:call(op(fails_with_text), [<<"no such atom anywhere 3">>]))
    end,
    Calls(),
    Before = erlang:system_info(atom_count),
    Calls(),
    ?assertEqual(Before, erlang:system_info(atom_count)).
